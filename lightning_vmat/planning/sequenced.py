"""The planner that every member is: a start, a fluence optimizer, leaf sequencing and a polish of the apertures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.alternating import AlternatingSequencing, deliverable
from lightning_vmat.planning.aperture_optimization import ApertureOptimization
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.sequencing import sequence

PULL_EVALUATIONS = 2  # a dose, and the majoriser there

Start = Callable[[Case, Problem], Float[Tensor, "control_point leaf_pair beamlet"]]
"""Gives the fluence, over `problem.scale_mu`, from which planning starts."""


def open_start(case: Case, problem: Problem) -> Float[Tensor, "control_point leaf_pair beamlet"]:
    """The even conformal open field."""
    return problem.open_field


@dataclass(frozen=True)
class SequencedPlanner:
    """Start -> fluence optimization -> leaf sequencing -> aperture optimization, each but the first optional.

    Args:
        start: gives the first fluence.
        optimizer: refines it; None to keep it as it is.
        evaluations: dose evaluations for the optimizer.
        apertures: polishes the sequenced plan on its delivered dose; None to stop at the ideal fluence.
        alternating: sequences in turns with fluence optimization; None to sequence once.
        voxels: size of the voxel sample on which the plan is optimised.
        seed: of the voxel sample.
        pull: of fluence optimization toward what the start delivers once sequenced, over the mean of the problem's
            majoriser, so that apertures can follow; the objectives of that stage then contain it.
    """

    start: Start = open_start
    optimizer: Optimizer[Any] | None = None
    evaluations: int = 0
    apertures: ApertureOptimization | None = None
    alternating: AlternatingSequencing | None = None
    voxels: int = 15000
    seed: int = 0
    pull: float = 0.0

    def plan(self, case: Case) -> PlanResult:
        """Plan one case; see `Planner.plan`."""
        trace = Trace()
        with trace.stage("problem"):
            problem = build_problem(case, self.voxels, self.seed)
        with trace.stage("start"):
            x = self.start(case, problem)
        if self.optimizer is not None:
            with trace.stage("fluence"):
                course = run(self._pulled(case, problem, x, trace), self.optimizer, x, self.evaluations)
                times, values = course.seconds.tolist(), course.values.tolist()
                for spent, (seconds, value) in enumerate(zip(times, values, strict=True)):
                    trace.add("fluence", spent, seconds, value)
            x = course.x
            trace.spend(self.evaluations)
        fluence_mu = x * problem.scale_mu
        if self.apertures is None:
            return PlanResult(fluence_mu, None, trace)
        with trace.stage("sequencing"):
            if self.alternating is None:
                plan = sequence(fluence_mu, case.beamlets)
            else:
                plan = self.alternating.sequence(case, problem, x, trace)
        sequenced_mu = plan.fluence_mu(case.beamlets, case.machine)
        with trace.stage("apertures"):
            plan = self.apertures.refine(case, problem, plan, trace)
        return PlanResult(plan.fluence_mu(case.beamlets, case.machine), plan, trace, fluence_mu, sequenced_mu)

    def _pulled(
        self, case: Case, problem: Problem, x: Float[Tensor, "control_point leaf_pair beamlet"], trace: Trace
    ) -> Problem:
        """The problem that fluence optimization solves."""
        if not self.pull:
            return problem
        delivered = deliverable(case, problem, x).fluence_mu(case.beamlets, case.machine) / problem.scale_mu
        majoriser = problem.majoriser(problem.dose(delivered))
        trace.spend(PULL_EVALUATIONS)
        return PulledProblem.of(problem, delivered, self.pull * float(majoriser.mean()))
