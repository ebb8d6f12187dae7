"""Two processes that share a training end with the same weights, also where the recipe optimises by hand."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from synthetic import TEACHER, small_network, synthetic_batch, synthetic_problem
from torch.utils.data import DataLoader
from yaml import safe_dump

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.data.batch import PlanBatch, PlanItem
from lightning_vmat.data.batching import SameShapeBatches
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.recipes.base import PlanRecipe
from lightning_vmat.recipes.distillation import Distillation
from lightning_vmat.recipes.learned_optimizer import LearnedOptimization
from lightning_vmat.recipes.loading import build_recipe
from lightning_vmat.recipes.regression import Regression


class DrawDifferently(Callback):
    """Other noise on each rank, as on other machines; at the end, the weights of each rank in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(trainer.global_rank)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_rank}.pt")


class Shared(LightningDataModule):
    """Synthetic cases that ranks share out as those of a cohort; batches of `cases_at_once` over all ranks."""

    def __init__(self, cases: int, cases_at_once: int, with_problems: bool = False) -> None:
        super().__init__()
        self.items = [item(seed, with_problems) for seed in range(cases)]
        self.cases_at_once = cases_at_once

    def loader(self, training: bool) -> DataLoader[PlanBatch]:
        trainer = self.trainer
        assert trainer is not None
        size, shapes = self.cases_at_once // trainer.world_size, [(1,)] * len(self.items)
        batches = SameShapeBatches(shapes, size, training, trainer.global_rank, trainer.world_size)
        return DataLoader(self.items, batch_sampler=batches, collate_fn=PlanBatch.collate)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[PlanBatch]:
        return self.loader(training=True)

    def test_dataloader(self) -> DataLoader[PlanBatch]:
        return self.loader(training=False)


def item(seed: int, with_problem: bool) -> PlanItem:
    """A synthetic case."""
    batch = synthetic_batch(1, seed)
    assert batch.fluence is not None
    problem = synthetic_problem() if with_problem else None
    setup = make_phantom(0, "tiny").beam_setup
    return PlanItem(batch.case_ids[0], batch.case_dirs[0], batch.condition[0], batch.fluence[0], 1.0, problem, setup)


def trained(recipe: PlanRecipe, folder: Path, data: Shared, ranks: int = 2) -> list[dict[str, torch.Tensor]]:
    """The weights of each rank at the end of an epoch."""
    folder.mkdir(exist_ok=True)
    trainer = trainer_on(ranks, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice
        trainer.fit(recipe, datamodule=data)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def trainer_on(ranks: int, folder: Path) -> Trainer:
    """A trainer of so many processes, which writes nothing of its own."""
    return Trainer(
        strategy="ddp_fork_find_unused_parameters_true" if ranks > 1 else "auto",
        accelerator="cpu",
        devices=ranks,
        max_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DrawDifferently(folder)],
    )


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
    assert_learnt_alike(before, trained(recipe, tmp_path, Shared(4, 2)), ("denoiser",))


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
    assert_learnt_alike(before, trained(recipe, tmp_path, Shared(6, 2)), ("generator", "fake"))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_regression_of_one_batch_of_four_is_that_of_two_of_two(tmp_path: Path) -> None:
    """Gradients are the same up to the rounding of their sums; after three steps weights differ by less than 1e-5."""
    weights = []
    for ranks in (1, 2):
        lightning.seed_everything(0, verbose=False)
        recipe = Regression(small_network(), lambda parameters: torch.optim.SGD(parameters, lr=0.1))
        before = {name: value.clone() for name, value in recipe.state_dict().items()}
        weights.append(trained(recipe, tmp_path / str(ranks), Shared(12, 4), ranks))
    assert_learnt_alike(before, weights[1], ("network",))
    for name, value in weights[0][0].items():
        torch.testing.assert_close(weights[1][0][name], value, rtol=0, atol=1e-5)
    moved = max(float((weights[0][0][name] - value).abs().max()) for name, value in before.items())
    assert moved > 1e-2


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_learned_optimizer_learns_alike_and_is_judged_on_all_cases(tmp_path: Path) -> None:
    lightning.seed_everything(0, verbose=False)
    recipe = LearnedOptimization(
        LearnedOptimizer(hidden=4), lambda parameters: torch.optim.Adam(parameters, lr=1e-3), evaluations=3
    )
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    data = Shared(3, 2, with_problems=True)
    assert_learnt_alike(before, trained(recipe, tmp_path, data), ("network",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer_on(2, tmp_path).test(recipe, datamodule=data, verbose=False)
    assert json.loads((tmp_path / "comparison.json").read_text())["cases"] == 3
