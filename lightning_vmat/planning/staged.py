"""The planner of stages: a start, fluence optimization, leaf sequencing and aperture optimization."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.alternating import AlternatingSequencing, deliverable
from lightning_vmat.planning.planner import ApertureOptimizer, PlanResult, Trace
from lightning_vmat.planning.problem import VOXELS, build_problem
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.sequencing import sequence

PULL_EVALUATIONS = 3  # a dose and its majoriser before, the objective without the pull after

Start = Callable[[Case, Problem], FluenceMap]
"""Returns the fluence, over `problem.scale_mu`, from which planning starts."""


def open_start(case: Case, problem: Problem) -> FluenceMap:
    """Returns the uniform conformal open field."""
    return problem.open_field


@dataclass(frozen=True)
class SequencedPlanner:
    """Start -> fluence optimization -> leaf sequencing -> aperture optimization, each but the first optional.

    Args:
        start: returns the first fluence.
        optimizer: fluence optimizer; None to keep the start.
        evaluations: dose evaluations of the fluence optimizer.
        apertures: optimises the sequenced plan on its delivered dose; None to stop at the ideal fluence.
        alternating: alternates sequencing with fluence optimization; None to sequence once.
        exploration: aperture optimization in large steps, between sequencing and `apertures`.
        voxels: size of the voxel sample on which the plan is optimised.
        coarse_voxels: size of another sample for the stages before `apertures`; None for the same sample.
        seed: seed of the voxel samples.
        pull: strength with which fluence optimization is pulled toward the sequenced start, over the mean of the
            problem's majoriser, so that apertures can deliver the result.
    """

    start: Start = open_start
    optimizer: Optimizer[Any] | None = None
    evaluations: int = 0
    apertures: ApertureOptimizer | None = None
    alternating: AlternatingSequencing | None = None
    exploration: ApertureOptimizer | None = None
    voxels: int = VOXELS
    coarse_voxels: int | None = None
    seed: int = 0
    pull: float = 0.0

    def plan(self, case: Case) -> PlanResult:
        """Plans one case; see `Planner.plan`."""
        trace = Trace()
        with trace.stage("problem"):
            problem = build_problem(case, self.voxels, self.seed)
            coarse = problem
            if self.coarse_voxels is not None:
                coarse = build_problem(case, self.coarse_voxels, self.seed + 1)
        return self.solve(case, problem, coarse, trace)

    def solve(self, case: Case, problem: Problem, coarse: Problem, trace: Trace) -> PlanResult:
        """Plans one case whose problem is built already.

        Args:
            case: the case, with its jaws and wishes.
            problem: problem of the case, for aperture optimization.
            coarse: problem of the case for the stages before it; the same one, or on fewer voxels.
            trace: records the course.

        Raises:
            ValueError: see `Planner.plan`.
        """
        with trace.stage("start"):
            x = self.start(case, coarse)
        if self.optimizer is not None:
            x = self._optimise(case, coarse, x, self.optimizer, trace)
        fluence_mu = x * coarse.scale_mu * case.beamlets.inside_jaws.to(x)
        if self.apertures is None:
            return PlanResult(fluence_mu, None, trace)
        with trace.stage("sequencing"):
            if self.alternating is None:
                plan = sequence(fluence_mu, case.beamlets)
            else:
                plan = self.alternating.sequence(case, coarse, x, trace)
        sequenced_mu = plan.fluence_mu(case.beam_setup)
        if self.exploration is not None:
            with trace.stage("exploration"):
                plan = self.exploration.refine(case, coarse, plan, trace, "exploration")
        with trace.stage("apertures"):
            plan = self.apertures.refine(case, problem, plan, trace)
        delivered_mu = plan.fluence_mu(case.beam_setup)
        if self.start is open_start and self.optimizer is None:  # the open field is no wanted fluence
            return PlanResult(delivered_mu, plan, trace)
        return PlanResult(delivered_mu, plan, trace, fluence_mu, sequenced_mu)

    def _optimise(
        self,
        case: Case,
        problem: Problem,
        x: FluenceMap,
        optimizer: Optimizer[Any],
        trace: Trace,
    ) -> FluenceMap:
        """Optimises fluence; with a pull, the trace has only the end, whose objective excludes the pull."""
        with trace.stage("fluence"):
            begin = time.perf_counter()
            if self.pull:
                delivered = deliverable(case, problem, x).fluence_mu(case.beam_setup) / problem.scale_mu
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
