"""Planners of trained runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.planners import BUDGET, learned_planner
from lightning_vmat.planning.problem import SHARE, VOXELS, CaseProblems
from lightning_vmat.planning.staged import KnownStart, SequencedPlanner
from lightning_vmat.recipes.trained import (
    RECIPES,
    TrainedStart,
    learned_optimizer,
    load_start,
    read_run,
    step_correction,
)

EVALUATIONS = 10  # of a hand-designed optimizer after a generator


def recipe_planner(
    run: Path,
    voxels: int = VOXELS,
    seed: int = 0,
    progress: bool = False,
    optimizer: Optimizer[Any] | None = None,
    budget: int = BUDGET,
) -> SequencedPlanner:
    """Returns the planner of a trained run: its fluence, an optimizer if there is one, sequencing, and apertures.

    Args:
        run: run directory, checkpoint, folder of weights or name of shipped weights.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample and the generator's noise.
        progress: show progress bars.
        optimizer: fluence optimizer in place of the run's own.
        budget: total number of dose evaluations.

    Raises:
        ValueError: no such run, a generator with other condition channels than the run's, or a budget too small.
    """
    start, files = load_start(run, seed), read_run(run)
    evaluations, correction = EVALUATIONS if optimizer is not None else 0, None
    if files.class_path == RECIPES["learned"]:
        evaluations = int(files.number("evaluations", EVALUATIONS))
        optimizer, correction = optimizer or learned_optimizer(run), step_correction(run)
    seen = start.channels.fluence_evaluations
    return learned_planner(start, optimizer, voxels, seed, evaluations, budget, progress, seen, correction)


@dataclass(frozen=True)
class CarefulPlanner:
    """Planner of a trained run that says how unlike those of its training a case is.

    Args:
        staged: planner that starts from the run's fluence maps.
        fallback: planner for cases unlike those of the training; None to plan them all the same.
        fallback_name: its name.
    """

    staged: SequencedPlanner
    fallback: SequencedPlanner | None = None
    fallback_name: str = ""

    def plan(self, case: Case) -> PlanResult:
        """Plans one case; see `Planner.plan`."""
        start = self.staged.start
        if not isinstance(start, TrainedStart) or start.seen is None:
            return self.staged.plan(case)
        if self.fallback is None:
            start.check(case)
        problems, trace = CaseProblems(case, self.staged.voxels, self.staged.seed), Trace()
        with trace.stage("problem"):
            _ = problems.whole
            if self.staged.start_evaluations:
                _ = problems.small  # the condition needs it: its seconds count here
        with trace.stage("start"):
            condition = start.condition(problems)
            unlikeness = start.seen.unlikeness(condition)
        if self.fallback is not None and unlikeness > 1:
            with trace.sample(SHARE):
                trace.spend(self.staged.start_evaluations)
            result = replace(self.fallback.solve(problems, trace), planner=self.fallback_name)
        else:
            with trace.stage("start"):
                x = start.generate(condition, problems)
            result = replace(self.staged, start=KnownStart(x)).solve(problems, trace)
        return replace(result, unlikeness=unlikeness)
