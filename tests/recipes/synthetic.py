"""Cases that cost nothing: apertures that follow a blob drifting over the arc, and a loader over them."""

from __future__ import annotations

import pathlib
from typing import Any, Self

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from scipy.sparse import csr_array
from torch.utils.data import DataLoader

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.networks.denoiser import FluenceDenoiser
from lightning_vmat.recipes.base import PlanRecipe

CONTROL_POINTS, SIDE = 12, 8
SIGMA_DATA = 0.6


def synthetic_batch(cases: int, seed: int = 0) -> PlanBatch:
    """Two-level fluence: each control point opens on a disc, whose shape is the condition, by its own MU."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(SIDE) - (SIDE - 1) / 2
    angle = 2 * torch.pi * torch.arange(CONTROL_POINTS) / CONTROL_POINTS
    phase, swing = (
        2 * torch.pi * torch.rand(cases, 1, generator=generator),
        2 * torch.rand(cases, 1, generator=generator),
    )
    centre = swing * (angle + phase).cos()
    disc = (place[:, None] ** 2 + (place - centre[..., None, None]) ** 2 < 9.0).float()
    mu = 1 + 0.5 * (2 * angle + phase).sin()
    return PlanBatch(
        case_ids=tuple(f"synthetic_{seed}_{i}" for i in range(cases)),
        case_dirs=tuple(pathlib.Path() for _ in range(cases)),
        condition=torch.stack((disc, mu[..., None, None].expand_as(disc)), dim=1),
        fluence=mu[..., None, None] * (0.02 + 0.98 * disc),
        scale_mu=torch.ones(cases),
        problems=(),
    )


def loader(batch: PlanBatch) -> DataLoader[Any]:
    """One batch an epoch, always the same."""
    return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]


def small_network() -> FluenceDenoiser:
    return FluenceDenoiser(2, channels=(16, 32), heads=2, embedding=32)


def fit(recipe: PlanRecipe, batch: PlanBatch, steps: int, *callbacks: Callback) -> lightning.Trainer:
    """Train for so many optimizer steps on one batch, then validate; nothing is written."""
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(recipe, loader(batch))
    trainer.validate(recipe, loader(batch), verbose=False)
    return trainer


def sums_of_maps() -> StoredInfluence:
    """A dose operator: each of 200 voxels sums a few beamlets, drawn at random."""
    shape = (CONTROL_POINTS, SIDE, SIDE)
    rays = CONTROL_POINTS * SIDE * SIDE
    matrix = (torch.rand(200, rays, generator=torch.Generator().manual_seed(0)) < 0.05).float() / (0.05 * rays)
    return StoredInfluence.from_scipy(csr_array(matrix.numpy()), shape)


class EvenDose:
    """Squared distance from 2 Gy everywhere."""

    def __call__(self, dose_gy: torch.Tensor) -> torch.Tensor:
        return (dose_gy - 2.0).square().mean(-1)

    def gradient(self, dose_gy: torch.Tensor) -> torch.Tensor:
        return 2 * (dose_gy - 2.0) / dose_gy.shape[-1]

    def to(self, device: torch.device | str) -> Self:
        return self


def synthetic_problem() -> Problem:
    """An objective that the discs of `synthetic_batch` are far from: they average less than 1."""
    operator = sums_of_maps()
    return Problem("synthetic", DoseProjection(operator), EvenDose(), 1.0, torch.ones(operator.fluence_shape))


def repeated(batch: PlanBatch, times: int) -> PlanBatch:
    """Each case several times over, so that one step sees it at several noise levels."""
    assert batch.fluence is not None
    return PlanBatch(
        case_ids=batch.case_ids * times,
        case_dirs=batch.case_dirs * times,
        condition=batch.condition.repeat(times, 1, 1, 1, 1),
        fluence=batch.fluence.repeat(times, 1, 1, 1),
        scale_mu=batch.scale_mu.repeat(times),
        problems=(),
    )


NETWORK = {
    "class_path": "lightning_vmat.networks.denoiser.FluenceDenoiser",
    "init_args": {"condition_channels": 2, "channels": [16, 32], "heads": 2, "embedding": 32},
}
TEACHER = {
    "class_path": "lightning_vmat.recipes.teacher.Teacher",
    "init_args": {
        "network": NETWORK,
        "sigma_data": SIGMA_DATA,
        "noise": {
            "class_path": "lightning_vmat.diffusion.noise.LogNormalNoise",
            "init_args": {"mean": -0.8, "std": 1.4},
        },
        "sampler": {
            "class_path": "lightning_vmat.diffusion.heun_sampler.HeunSampler",
            "init_args": {"steps": 8},
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 5.0e-3}},
    },
}
