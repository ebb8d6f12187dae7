"""The planner of stages: a start, fluence optimization, leaf sequencing and aperture optimization."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.alternating import deliverable
from lightning_vmat.planning.exploration import Exploration
from lightning_vmat.planning.pairs import PlanPairs
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.problem import PART, SHARE, VOXELS, CaseProblems
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sequencing import sequence

LEAST = 3
"""Minimum dose evaluations of aperture optimization: setting up and one step."""

PULL_EVALUATIONS = 3  # a dose and its majoriser before, the objective without the pull after

Start = Callable[[CaseProblems], FluenceMap]
"""Returns the fluence, over `scale_mu` of the whole problem, from which planning starts."""


def open_start(problems: CaseProblems) -> FluenceMap:
    """Returns the uniform conformal open field."""
    return problems.whole.open_field


@dataclass(frozen=True)
class KnownStart:
    """A fluence, over `scale_mu` of the whole problem, as a `Start`."""

    x: FluenceMap

    def __call__(self, problems: CaseProblems) -> FluenceMap:
        return self.x


@dataclass(frozen=True)
class SequencedPlanner:
    """Start -> fluence optimization -> leaf sequencing or exploration -> aperture optimization.

    All but the start are optional.

    Args:
        start: returns the first fluence.
        start_evaluations: dose evaluations of the start on a small problem; each counts as `SHARE` of an evaluation.
        optimizer: fluence optimizer where there is no exploration, which has its own; None to keep the start.
        evaluations: dose evaluations of the fluence optimizer.
        apertures: optimises the sequenced plan on its delivered dose; None to stop at the ideal fluence.
        part_evaluations: dose evaluations of the same optimization on part of the voxels before; what it learned of the
            curvature is kept. Each counts as `PART` of an evaluation. Left out where too few of the budget are left.
        exploration: looks for a good local minimum, where the case suits it; None to sequence once.
        budget: dose evaluations in all; `apertures` gets what the stages before leave. None to give it its own number.
        alone_budget: the budget where the case does not suit exploration; None for the same.
        voxels: size of the voxel sample on which the plan is optimised.
        seed: seed of the voxel samples.
        pull: strength with which fluence optimization is pulled toward the sequenced start, over the mean of the
            problem's majoriser, so that apertures can deliver the result.
    """

    start: Start = open_start
    optimizer: Optimizer[Any] | None = None
    evaluations: int = 0
    apertures: QuasiNewtonApertures | None = None
    part_evaluations: int = 0
    exploration: Exploration | None = None
    budget: float | None = None
    alone_budget: float | None = None
    voxels: int = VOXELS
    seed: int = 0
    pull: float = 0.0
    start_evaluations: int = 0

    def plan(self, case: Case) -> PlanResult:
        """Plans one case; see `Planner.plan`."""
        return self.solve(CaseProblems(case, self.voxels, self.seed), Trace())

    def solve(self, problems: CaseProblems, trace: Trace) -> PlanResult:
        """Plans a case some of whose problems may be built already.

        Args:
            problems: problems of the case with its jaws and wishes.
            trace: records the course.

        Raises:
            ValueError: see `Planner.plan`.
        """
        case, before = problems.case, trace.spent
        with trace.stage("problem"):
            problem = problems.whole
            if self.start_evaluations:
                _ = problems.small  # the start builds it at the latest: its seconds count here
        with trace.stage("start"):
            x = self.start(problems)
        with trace.sample(SHARE):
            trace.spend(self.start_evaluations)
        exploration = None if self.exploration is None else self.exploration.fitted(case, self.voxels)
        if self.optimizer is not None and exploration is None:
            x = self._optimise(case, problem, x, self.optimizer, trace)
        fluence_mu = x * problem.scale_mu * case.beamlets.inside_jaws.to(x)
        if self.apertures is None:
            return PlanResult(fluence_mu, None, trace)
        apertures, wanted_mu, sequenced_mu = self.apertures, None, None
        if isinstance(apertures.correction, nn.Module):
            apertures.correction.to(x.device)
        if exploration is not None:
            found = exploration.explore(problems, x, trace)
            plan, wanted_mu, sequenced_mu = found.plan, found.wanted_mu, found.sequenced_mu
        else:
            with trace.stage("sequencing"):
                plan = sequence(fluence_mu, case.beamlets)
            if self.start is not open_start or self.optimizer is not None:  # the open field is no wanted fluence
                wanted_mu, sequenced_mu = fluence_mu, plan.fluence_mu(case.beam_setup)
        on_part, budget, pairs = self.part_evaluations, self.budget, PlanPairs()
        if exploration is None and self.alone_budget is not None:
            budget = self.alone_budget
        if budget is not None:
            left = budget - (trace.spent - before)
            on_part = on_part if left >= on_part * PART + LEAST else 0
            apertures = replace(apertures, evaluations=math.floor(left - on_part * PART + 1e-6))
        if on_part:
            with trace.stage("problem"):
                part = problems.part
            with trace.stage("exploration"), trace.sample(PART):
                first = replace(apertures, evaluations=on_part, made=None)
                plan = first.refine(case.beam_setup, part, plan, trace, "exploration", pairs)
        with trace.stage("apertures"):
            plan = apertures.refine(case.beam_setup, problem, plan, trace, pairs=pairs)
        return PlanResult(plan.fluence_mu(case.beam_setup), plan, trace, wanted_mu, sequenced_mu)

    def _optimise(
        self,
        case: Case,
        problem: Problem,
        x: FluenceMap,
        optimizer: Optimizer[Any],
        trace: Trace,
    ) -> FluenceMap:
        """Optimises fluence; with a pull, the trace has only the end, whose objective excludes the pull."""
        if isinstance(optimizer, nn.Module):
            optimizer.to(x.device)
        with trace.stage("fluence"):
            begin = time.perf_counter()
            if self.pull:
                delivered = deliverable(case.beam_setup, problem, x).fluence_mu(case.beam_setup) / problem.scale_mu
                pull = self.pull * float(problem.majoriser(problem.dose(delivered)).mean())
                x = run(PulledProblem.of(problem, delivered, pull), optimizer, x, self.evaluations).x
                spent = self.evaluations + PULL_EVALUATIONS
                trace.add("fluence", spent, time.perf_counter() - begin, float(problem.value(x)))
            else:
                spent, course = self.evaluations, run(problem, optimizer, x, self.evaluations)
                x = course.x
                for number, at in enumerate(zip(course.seconds.tolist(), course.values.tolist(), strict=True)):
                    trace.add("fluence", number, *at)
        trace.spend(spent)
        return x
