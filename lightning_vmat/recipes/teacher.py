"""The teacher: a diffusion model of the fluence maps of reference plans, given the beam's-eye view of a case."""

from __future__ import annotations

import zlib

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.diffusion.denoising_loss import DenoisingLoss
from lightning_vmat.diffusion.heun_sampler import HeunSampler
from lightning_vmat.diffusion.noise import NoiseDistribution
from lightning_vmat.diffusion.preconditioning import EDMPreconditioning
from lightning_vmat.recipes.base import Fluence, PlanRecipe, require_finite, warmup_cosine


class Teacher(PlanRecipe):
    """Learns to denoise fluence maps; generates them by many steps of the sampler.

    Args:
        network: raw network, `network(x, c_noise, condition)`.
        sigma_data: root mean square of the normalised fluence of the cohort.
        noise: distribution of noise levels in training.
        sampler: sampler of fluence maps.
        optimizer: makes the optimizer from the parameters.
        warmup_steps: optimizer steps of rising learning rate.

    Reference: Karras et al. 2022 (EDM).
    """

    def __init__(
        self,
        network: nn.Module,
        sigma_data: float,
        noise: NoiseDistribution,
        sampler: HeunSampler,
        optimizer: OptimizerCallable,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self.denoiser = EDMPreconditioning(network, sigma_data)
        self.loss = DenoisingLoss(noise, sigma_data)
        self.sampler = sampler
        self.make_optimizer = optimizer
        self.warmup_steps = warmup_steps

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Returns sampled maps of the cases, non-negative, in units of `scale_mu`."""
        return self.sampler(self.denoiser, batch.noise(seed), batch.condition).clamp(min=0.0)

    def training_step(self, batch: PlanBatch, batch_index: int) -> Tensor:
        """Returns the denoising loss on the reference plans' fluence."""
        loss = require_finite(self.loss(self.denoiser, batch.reference, batch.condition), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.case_ids))
        return loss

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Logs the denoising loss with fixed noise, and evaluates sampled maps."""
        clean, losses = batch.reference, []
        for i, case_id in enumerate(batch.case_ids):  # noise depends on the case only, not on batches and ranks
            noise = torch.Generator().manual_seed(zlib.crc32(case_id.encode()))
            losses.append(self.loss(self.denoiser, clean[i, None], batch.condition[i, None], noise))
        loss = torch.stack(losses).mean()
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch.case_ids), sync_dist=True)
        self.evaluate(batch, "val")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns the optimizer of the network with warm-up and cosine decay."""
        optimizer = self.make_optimizer(self.denoiser.parameters())
        return warmup_cosine(optimizer, self.warmup_steps, self.trainer.estimated_stepping_batches)
