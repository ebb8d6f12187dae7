"""What all recipes share: generate fluence maps for a batch of cases, project them to dose, measure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.metrics.case_means import CaseMeans
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.metrics.recall import CohortRecall
from lightning_vmat.metrics.target_dose import TARGET_VALUES, target_values
from lightning_vmat.objectives.goals import evaluate_goals
from lightning_vmat.objectives.plan_objective import PlanObjective

Fluence = Float[Tensor, "batch control_point leaf_pair beamlet"]
PerCase = Float[Tensor, " batch"]


class PlanRecipe(LightningModule, ABC):
    """A recipe turns the condition of cases into fluence maps, and is judged on them.

    Logged for validation and test, as means over cases: `fluence_error` (squared error over the squared reference
    plan's fluence), `diversity` of two plans of one case, and where the batch brings its problems `objective`,
    `reference_objective` (that of the reference plan's fluence), the target dose of `target_values`, and
    `goals_met`, the fraction of a case's clinical goals. Read `goals_met` beside the target dose: most goals are
    upper limits, which no dose at all meets too. For test also `recall` and `precision` of all maps together, see
    `CohortRecall`.
    """

    TRAINING_ONLY: tuple[str, ...] = ()  # beginnings of the names of weights that no plan needs
    QUALITIES = ("fluence_error", "diversity", "objective", "reference_objective", *TARGET_VALUES, "goals_met")

    def __init__(self) -> None:
        super().__init__()
        self.dose_evaluations = 0  # in training, on this rank, since this process began
        for stage in ("val", "test"):
            self.add_module(f"{stage}_means", CaseMeans(self.QUALITIES))
        self.test_recall = CohortRecall()

    @abstractmethod
    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Fluence maps for each case, non-negative, in units of the case's `scale_mu`.

        Args:
            batch: cases; only their ids and condition are needed.
            seed: another seed gives another sample, where the recipe has any choice.
        """

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: PlanBatch, batch_index: int) -> None:
        self.evaluate(batch, "test")

    def predict_step(self, batch: PlanBatch, batch_index: int) -> Fluence:
        return self.generate(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        self._log_means("test")
        nothing = torch.zeros(0, 1, 1, 1, device=self.device)  # lest a rank without cases should have another state
        self.test_recall.update(nothing, nothing)
        shares = self.test_recall.compute()
        self.test_recall.reset()
        self.log_dict({f"test/{name}": share for name, share in shares.items()}, sync_dist=True)

    def evaluate(self, batch: PlanBatch, stage: str) -> None:
        """Measure generated maps: their qualities, and those of the dose where the batch brings its problems."""
        x = self.generate(batch)
        qualities = {"diversity": diversity(x, self.generate(batch, seed=1))}
        if batch.fluence is not None:
            qualities["fluence_error"] = fluence_error(x, batch.fluence)
        if batch.problems:
            qualities["objective"] = self._judge_dose(batch, x, stage)
            if batch.fluence is not None:
                qualities["reference_objective"] = batch.objective(batch.fluence)
        self._means(stage).update(qualities)
        if stage == "test":
            known = x[:0] if batch.fluence is None else batch.fluence
            self.test_recall.update(x[: len(known)], known)

    def _judge_dose(self, batch: PlanBatch, x: Fluence, stage: str) -> PerCase:
        """Objective of each case; target dose and goals go to the stage's means."""
        values = []
        for problem, maps in zip(batch.problems, x, strict=True):
            dose_gy = problem.dose(maps)
            values.append(problem.objective(dose_gy))
            if isinstance(problem.objective, PlanObjective):
                plan = problem.objective
                dvhs = {name: Dvh(dose_gy[v.index], v.volume_cc) for name, v in plan.structures.items()}
                goals = evaluate_goals(dvhs, plan.protocol, plan.prescription_gy)
                met = sum(goal.met for goal in goals) / max(len(goals), 1)
                self._means(stage).update(target_values(dvhs, plan.prescription_gy) | {"goals_met": met})
        return torch.stack(values)

    def _means(self, stage: str) -> CaseMeans:
        return self.get_submodule(f"{stage}_means")  # type: ignore[return-value]

    def _log_means(self, stage: str) -> None:
        """Log the means over all cases; every rank takes part, whatever its own cases brought."""
        means = self._means(stage)
        means.update({})
        measured = means.compute()
        means.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in measured.items()}, sync_dist=True)


def require_finite(loss: Float[Tensor, ""], batch: PlanBatch) -> Float[Tensor, ""]:
    """The loss, checked before any step follows its gradient.

    Raises:
        ValueError: it is NaN or infinite; the weights are still as they were before this batch.
    """
    if not bool(loss.isfinite()):
        raise ValueError(
            f"cases {', '.join(batch.case_ids)}: the loss is {loss.item()}, expected a finite one; the last checkpoint "
            "stays as it was (a lower learning rate, or gradient clipping, may help)"
        )
    return loss


def fluence_error(x: Fluence, reference: Fluence) -> PerCase:
    """Squared error of all maps of a case over the squared reference."""
    squared: Tensor = reference.square().flatten(1).sum(dim=1)
    return (x - reference).square().flatten(1).sum(dim=1) / squared


def diversity(first: Fluence, second: Fluence) -> PerCase:
    """Mean absolute difference of two plans of a case over their mean fluence: 0 alike, 2 disjoint."""
    difference = (first - second).abs().flatten(1).mean(dim=1)
    return difference / ((first + second).flatten(1).mean(dim=1) / 2).clamp(min=1e-6)


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int | float) -> OptimizerLRSchedulerConfig:
    """Learning rate that rises linearly, then falls along a cosine to zero at `total_steps` (constant if endless)."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup_steps + 1))
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1.0)
        return rise * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2

    scheduler = LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
