"""Base of all recipes: generate fluence maps for a batch of cases, project them to dose, evaluate."""

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
    """A recipe turns the condition of cases into fluence maps, and is evaluated on them.

    Validation and test log means over cases: `fluence_error` (squared error over the squared fluence of the reference
    plan) and `diversity` of two plans of one case. If the batch has its problems, they also log `objective`,
    `reference_objective` (that of the reference plan's fluence), the target dose of `target_values`, and `goals_met`,
    the fraction of a case's clinical goals. Read `goals_met` together with the target dose: most goals are upper
    limits, which zero dose meets too. Test also logs `recall` and `precision` of all maps together, see `CohortRecall`.
    """

    TRAINING_ONLY: tuple[str, ...] = ()  # prefixes of weights that are needed only in training
    QUALITIES = ("fluence_error", "diversity", "objective", "reference_objective", *TARGET_VALUES, "goals_met")

    def __init__(self) -> None:
        super().__init__()
        self.dose_evaluations = 0  # in training, on this rank, since the process started
        for stage in ("val", "test"):
            self.add_module(f"{stage}_means", CaseMeans(self.QUALITIES))
        self.test_recall = CohortRecall()

    @abstractmethod
    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Returns fluence maps for each case, non-negative, in units of the case's `scale_mu`.

        Args:
            batch: cases; only their ids and condition are needed.
            seed: seed of the sample, for recipes that sample.
        """

    def own_figures(self, batch: PlanBatch) -> dict[str, float]:
        """Returns further figures of a case for the card of the weights; the batch has its problem."""
        return {}

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Evaluates generated maps; their means are logged at the end of the epoch."""
        self.evaluate(batch, "val")

    def test_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Evaluates generated maps; their means are logged at the end of the epoch."""
        self.evaluate(batch, "test")

    def predict_step(self, batch: PlanBatch, batch_index: int) -> Fluence:
        """Returns generated maps of the cases, in units of `scale_mu`."""
        return self.generate(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the validation cases of all ranks."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over the test cases of all ranks, and recall and precision of their maps."""
        self._log_means("test")
        nothing = torch.zeros(0, 1, 1, 1, device=self.device)  # gives ranks without cases the same state as the others
        self.test_recall.update(nothing, nothing)
        shares = self.test_recall.compute()
        self.test_recall.reset()
        self.log_dict({f"test/{name}": share for name, share in shares.items()}, sync_dist=True)

    def evaluate(self, batch: PlanBatch, stage: str) -> None:
        """Evaluates generated maps, and their dose if the batch has its problems; adds the figures to the means."""
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
        """Returns the objective of each case; adds target dose and goals to the stage's means."""
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
        """Logs the means over all cases; a collective operation, which every rank must call."""
        means = self._means(stage)
        means.update({})
        measured = means.compute()
        means.reset()
        self.log_dict({f"{stage}/{name}": value for name, value in measured.items()}, sync_dist=True)


def require_finite(loss: Float[Tensor, ""], batch: PlanBatch) -> Float[Tensor, ""]:
    """Returns the loss, checked before any optimizer step.

    Raises:
        ValueError: a loss that is NaN or infinite; the weights are those before this batch.
    """
    if not bool(loss.isfinite()):
        raise ValueError(
            f"cases {', '.join(batch.case_ids)}: the loss is {loss.item()}, expected a finite one; the last checkpoint "
            "is unchanged (a lower learning rate, or gradient clipping, may help)"
        )
    return loss


def fluence_error(x: Fluence, reference: Fluence) -> PerCase:
    """Returns the squared error of each case's maps over the squared reference."""
    squared: Tensor = reference.square().flatten(1).sum(dim=1)
    return (x - reference).square().flatten(1).sum(dim=1) / squared


def diversity(first: Fluence, second: Fluence) -> PerCase:
    """Returns each case's mean absolute difference of two plans over their mean fluence: 0 if equal, 2 if disjoint."""
    difference = (first - second).abs().flatten(1).mean(dim=1)
    return difference / ((first + second).flatten(1).mean(dim=1) / 2).clamp(min=1e-6)


def warmup_cosine(optimizer: Optimizer, warmup_steps: int, total_steps: int | float) -> OptimizerLRSchedulerConfig:
    """Returns a schedule of linear warm-up and cosine decay to zero at `total_steps` (constant if that is infinite)."""

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup_steps + 1))
        progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1.0)
        return rise * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2

    scheduler = LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
