"""Meta-training of the learned optimizer, of fluence and of apertures, on the planning problems of a cohort."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.l2o.aperture_lstm import ApertureLSTM
from lightning_vmat.l2o.comparison import JUDGED, LEARNED, Comparison, Table, as_text
from lightning_vmat.l2o.learned import LearnedOptimizer, LearnedState
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run, unroll
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.planning.aperture_unroll import begin_apertures, refined_value, unroll_apertures
from lightning_vmat.recipes.base import Fluence, PerCase, PlanRecipe, require_finite, warmup_cosine
from lightning_vmat.recipes.loading import check_condition, load_recipe

TABLE_FILE = "comparison.json"


class LearnedOptimization(PlanRecipe):
    """Learns to lower the objective of any case, from any start, for any objective weights.

    In fluence, each case has its own unroll. Training uses one window of inner steps at a time; after `horizon` dose
    evaluations the unroll restarts with other objective weights and another start. On apertures, each unroll begins
    from a start that is sequenced, with other weights, makes up to `aperture_horizon` steps, and then a window.

    Args:
        network: the learned optimizer of fluence.
        optimizer: makes the optimizer of its parameters.
        generator: run directory or checkpoint of the recipe whose maps are the start; None for the open field.
        evaluations: dose evaluations for one plan.
        window: number of inner steps that are differentiated together.
        horizon: dose evaluations of an unroll in training.
        open_field_share: share of training unrolls that start from the open field instead of the generator's maps.
        weight_spread: objective weights are multiplied by `exp(u)`, u uniform in [-spread, spread].
        warmup_steps: optimizer steps of rising learning rate.
        apertures: learned correction of aperture optimization; None for none.
        aperture_window: steps of apertures that are differentiated together.
        aperture_horizon: steps of apertures before the window, at most.

    Raises:
        ValueError: fewer than one evaluation, or a window that does not fit the horizon.

    Reference: Andrychowicz et al. 2016 (truncated unroll).
    """

    def __init__(
        self,
        network: LearnedOptimizer,
        optimizer: OptimizerCallable,
        generator: str | None = None,
        evaluations: int = 10,
        window: int = 5,
        horizon: int = 21,
        open_field_share: float = 0.25,
        weight_spread: float = 1.0,
        warmup_steps: int = 0,
        apertures: ApertureLSTM | None = None,
        aperture_window: int = 3,
        aperture_horizon: int = 15,
    ) -> None:
        super().__init__()
        if evaluations < 1 or not 1 <= window < horizon:
            raise ValueError(
                f"evaluations {evaluations}, window {window}, horizon {horizon}: expected evaluations of at least 1 "
                "and 1 <= window < horizon"
            )
        self.network, self.apertures = network, apertures
        self.make_optimizer = optimizer
        self.generator_run = generator
        self.evaluations, self.window, self.horizon = evaluations, window, horizon
        self.open_field_share, self.weight_spread = open_field_share, weight_spread
        self.warmup_steps = warmup_steps
        self.aperture_window, self.aperture_horizon = aperture_window, aperture_horizon
        self._generator: list[PlanRecipe] = []  # in a list, so that it is no submodule and in no checkpoint
        self._unrolls: dict[str, tuple[Problem, LearnedState]] = {}
        self._comparison = Comparison()

    def setup(self, stage: str) -> None:
        """Checks that the generator exists and was trained with the cohort's condition channels.

        Raises:
            ValueError: no such generator, other channels, or mirror images.
        """
        if getattr(getattr(self.trainer, "datamodule", None), "mirror", False):
            raise ValueError("data.mirror true: expected false, because the problems of cases are not mirrored")
        if self.generator_run is not None:
            check_condition(self.generator_run, self.trainer)

    def start(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Returns the start of the optimizers: the generator's maps, or the open field of each case."""
        if self.generator_run is None:
            return torch.stack([problem.open_field for problem in batch.required_problems()])
        if not self._generator:
            self._generator = [load_recipe(self.generator_run).requires_grad_(False)]
        with torch.no_grad():
            return self._generator[0].to(self.device).generate(batch, seed)

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        """Returns the optimised maps of the cases after `evaluations` dose evaluations, in units of `scale_mu`."""
        starts = zip(batch.required_problems(), self.start(batch, seed), strict=True)
        return torch.stack([run(problem, self.network, x0, self.evaluations).x for problem, x0 in starts])

    def training_step(self, batch: PlanBatch, batch_index: int) -> Tensor:
        """Unrolls one window of each case, in fluence and on apertures, and returns the mean meta-loss."""
        losses = []
        begun = self._begin(batch)
        for case_id, (problem, state) in begun.items():
            steps = min(self.window, self.horizon - state.evaluations)
            state, loss = unroll(problem, self.network, state, steps)
            self.dose_evaluations += steps
            self._unrolls[case_id] = problem, state.detach()
            losses.append(loss)
        loss = torch.stack(losses).mean()
        if self.apertures is not None:
            aperture_loss = self._aperture_loss(batch, self.apertures)
            self.log("train/aperture_loss", aperture_loss.detach(), prog_bar=True, batch_size=len(batch))
            loss = loss + aperture_loss
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(batch))
        return require_finite(loss, batch)

    def _aperture_loss(self, batch: PlanBatch, correction: ApertureLSTM) -> Tensor:
        """Returns the mean meta-loss of one window on apertures for each case."""
        losses = []
        starts = self._varied_starts(batch)
        for problem, setup, x0 in zip(batch.required_problems(), batch.setups, starts, strict=True):
            steps = int(torch.randint(self.aperture_horizon + 1, ()))
            run = begin_apertures(setup, with_other_weights(problem, self.weight_spread), x0, correction, steps)
            if run.may_go_on:
                losses.append(unroll_apertures(run, self.aperture_window))
            self.dose_evaluations += run.halves // 2
        if not losses:  # a loss all the same: several processes must agree on the parameters that have gradients
            return 0 * torch.cat([parameter.flatten() for parameter in correction.parameters()]).sum()
        return torch.stack(losses).mean()

    def _varied_starts(self, batch: PlanBatch) -> Fluence:
        """Returns the generator's maps or open fields of the cases, half of them with noise."""
        starts = self.start(batch, seed=int(torch.randint(2**31, ())))
        open_fields = torch.stack([problem.open_field for problem in batch.required_problems()])
        return varied_start(mixed(starts, open_fields, self.open_field_share))

    def _begin(self, batch: PlanBatch) -> dict[str, tuple[Problem, LearnedState]]:
        """Returns the unroll of each case, restarted if there is none or it has reached the horizon."""
        over = [
            case_id not in self._unrolls or self._unrolls[case_id][1].evaluations >= self.horizon
            for case_id in batch.case_ids
        ]
        if any(over):
            starts = self._varied_starts(batch)
            for case_id, problem, x0, new in zip(batch.case_ids, batch.required_problems(), starts, over, strict=True):
                if new:
                    problem = with_other_weights(problem, self.weight_spread)
                    self._unrolls[case_id] = problem, self.network.init(problem, x0)
        return {case_id: self._unrolls[case_id] for case_id in batch.case_ids}

    def on_after_backward(self) -> None:
        """Sets gradients that are not finite to zero, so that they do not change the weights."""
        for parameter in self.parameters():
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
                parameter.grad.zero_()

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Logs the mean log ratio of the objective after and before optimization, and evaluates the dose.

        With apertures, the ratio is the mean of both modes.
        """
        reached = self._judge_dose(batch, self.generate(batch), "val")
        ratios = (reached / batch.objective(self.start(batch))).log()
        if self.apertures is not None:
            on_apertures = self._aperture_ratios(batch, self.apertures)
            self.log("val/aperture_log_ratio", on_apertures.mean(), batch_size=len(batch), sync_dist=True)
            ratios = (ratios + on_apertures) / 2
        self.log("val/log_ratio", ratios.mean(), prog_bar=True, batch_size=len(batch), sync_dist=True)

    def _aperture_ratios(self, batch: PlanBatch, correction: ApertureLSTM | None) -> PerCase:
        """Returns the log ratio of each case's objective after and before aperture optimization."""
        ratios = []
        for problem, setup, x0 in zip(batch.required_problems(), batch.setups, self.start(batch), strict=True):
            before, after = refined_value(setup, problem, x0, correction, self.evaluations)
            ratios.append(math.log(max(after, 1e-30) / max(before, 1e-30)))
        return torch.tensor(ratios, device=self.device)

    def own_figures(self, batch: PlanBatch) -> dict[str, float]:
        """Returns the log ratio of the objective after and before aperture optimization."""
        if self.apertures is None:
            return {}
        return {"aperture_log_ratio": float(self._aperture_ratios(batch, self.apertures).mean())}

    def on_test_start(self) -> None:
        """Starts an empty comparison with hand-designed optimizers."""
        self._comparison = Comparison()

    def test_step(self, batch: PlanBatch, batch_index: int) -> None:
        """Evaluates the optimised maps, runs all optimizers from the same starts, and compares both modes of apertures.

        `test/aperture_correction` is the log ratio of objectives with and without the correction.
        """
        self.evaluate(batch, "test")
        if self.apertures is not None:
            gain = self._aperture_ratios(batch, self.apertures) - self._aperture_ratios(batch, None)
            self.log("test/aperture_correction", gain.mean(), batch_size=len(batch), sync_dist=True)
        for problem, x0 in zip(batch.required_problems(), self.start(batch), strict=True):
            self._comparison.add(problem, self.network, x0)

    def on_test_epoch_end(self) -> None:
        """Logs means and comparison over all ranks, and writes the comparison to the run directory."""
        super().on_test_epoch_end()
        self._comparison.gather()
        table = self._comparison.table()
        self.log_dict({f"test/{name}_{JUDGED}": row[str(JUDGED)] for name, row in table.items()}, sync_dist=True)
        self.print(as_text(table))
        if self.trainer.is_global_zero:
            self._write(table)

    def _write(self, table: Table) -> None:
        path = Path(self.trainer.default_root_dir) / TABLE_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        start = "open field" if self.generator_run is None else self.generator_run
        result = {"start": start, "cases": len(self._comparison.traces[LEARNED]), "median": table}
        path.write_text(json.dumps(result | {"adam_rates": self._comparison.adam_rates()}, indent=2))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Returns the optimizer of the network with warm-up and cosine decay."""
        optimizer = self.make_optimizer(self.parameters())
        return warmup_cosine(optimizer, self.warmup_steps, float(self.trainer.estimated_stepping_batches))


def with_other_weights(problem: Problem, spread: float) -> Problem:
    """Returns the problem with each objective's weight multiplied by `exp(u)`, u uniform in [-spread, spread]."""
    if not isinstance(problem.objective, PlanObjective):
        return problem
    members = problem.objective.members
    factors = (spread * (2 * torch.rand(len(members)) - 1)).exp().tolist()
    varied = tuple(replace(member, weight=member.weight * f) for member, f in zip(members, factors, strict=True))
    return replace(problem, objective=replace(problem.objective, members=varied))


def mixed(x: Fluence, other: Fluence, share: float) -> Fluence:
    """Returns each case's maps `x`, or with probability `share` its maps `other`."""
    return torch.where((torch.rand(len(x), 1, 1, 1) < share).to(x.device), other, x)


def varied_start(x: Fluence) -> Fluence:
    """Returns the starts, half of them with each beamlet multiplied by a random factor from 0.5 to 1.5."""
    noisy = (torch.rand(len(x), 1, 1, 1) < 0.5).to(x)
    return x * (1 + noisy * (torch.rand_like(x) - 0.5))
