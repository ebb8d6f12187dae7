"""Two processes that share a training end with the same weights, also where the recipe optimises by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from synthetic import TEACHER, small_network, synthetic_batch
from torch.utils.data import DataLoader
from yaml import safe_dump

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.recipes.base import PlanRecipe
from lightning_vmat.recipes.distillation import Distillation
from lightning_vmat.recipes.loading import build_recipe


class DrawDifferently(Callback):
    """Other noise on each rank, as on other machines; at the end, the weights of each rank in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(trainer.global_rank)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_rank}.pt")


def fit_on_two_ranks(recipe: PlanRecipe, folder: Path, batches: int) -> list[dict[str, torch.Tensor]]:
    """Four synthetic cases, each rank with its own two; the weights of both at the end."""
    cases = [synthetic_batch(1, seed) for seed in range(2 * batches)]
    data: DataLoader[PlanBatch] = DataLoader(cases, batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(
        strategy="ddp_fork_find_unused_parameters_true",
        accelerator="cpu",
        devices=2,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DrawDifferently(folder)],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        trainer.fit(recipe, data)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_learnt_alike(
    before: dict[str, torch.Tensor], ranks: list[dict[str, torch.Tensor]], names: tuple[str, ...]
) -> None:
    for name, value in ranks[0].items():
        torch.testing.assert_close(ranks[1][name], value, rtol=0, atol=0)
    for part in names:
        assert any(not torch.equal(before[name], ranks[0][name]) for name in before if name.startswith(part))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_teacher_learns_alike_on_two_ranks(tmp_path: Path) -> None:
    lightning.seed_everything(0, verbose=False)
    (tmp_path / "config.yaml").write_text(safe_dump({"model": TEACHER}))
    recipe = build_recipe(tmp_path / "config.yaml")
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    assert_learnt_alike(before, fit_on_two_ranks(recipe, tmp_path, 2), ("denoiser",))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_generator_and_fake_score_learn_alike_on_two_ranks(teacher_run: Path, tmp_path: Path) -> None:
    lightning.seed_everything(0, verbose=False)
    recipe = Distillation(
        small_network(),
        sigma_data=0.6,
        sigma_max=20.0,
        teacher=str(teacher_run),
        generator_optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        fake_optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        fake_updates=1,
        pairs=1,
    )
    recipe.setup("fit")
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    assert_learnt_alike(before, fit_on_two_ranks(recipe, tmp_path, 3), ("generator", "fake"))
