"""Planning from an existing plan: its delivered fluence as a start, or further optimization of its apertures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.evaluation import body_objective
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.problem import VOXELS, CaseProblems
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures


@dataclass(frozen=True)
class DeliveredStart:
    """The fluence that a plan delivers, as a `Start` of fluence optimization.

    Args:
        given: the plan, with the control points and beamlet rows of the case.
    """

    given: Plan

    def __call__(self, problems: CaseProblems) -> FluenceMap:
        return self.given.fluence_mu(problems.case.beam_setup) / problems.whole.scale_mu


@dataclass(frozen=True)
class PolishingPlanner:
    """Optimises the apertures of an existing plan on their delivered dose.

    The result's objective over the whole body is never larger than that of a start within the machine's limits, which
    is returned if nothing better was found. A start that breaks limits is projected onto them first, which may cost
    more than the optimization gains.

    Args:
        given: the start.
        apertures: aperture optimizer.
        voxels: size of the voxel sample on which the plan is optimised.
        seed: seed of the voxel sample.
    """

    given: Plan
    apertures: QuasiNewtonApertures
    voxels: int = VOXELS
    seed: int = 0

    def plan(self, case: Case) -> PlanResult:
        """Plans one case; see `Planner.plan`."""
        trace = Trace()
        problems = CaseProblems(case, self.voxels, self.seed)
        with trace.stage("problem"):
            problem = problems.whole
        with trace.stage("start"):
            trace.add("start", 0, 0.0, float(problem.value(DeliveredStart(self.given)(problems))))
        with trace.stage("apertures"):
            polished = self.apertures.refine(case.beam_setup, problem, self.given, trace)
        with trace.stage("choice"):
            plan = self._better(case, polished)
        trace.spend(1)  # two forward projections count as one evaluation, although they are of the whole body
        return PlanResult(plan.fluence_mu(case.beam_setup), plan, trace)

    def _better(self, case: Case, polished: Plan) -> Plan:
        """Returns the polished plan, or the start within the machine's limits if that is better."""
        start = self.given
        if any(machine_violations(start, case.beam_setup).values()):
            start = project_to_limits(start, case.beam_setup)
        fluences = [plan.fluence_mu(case.beam_setup) for plan in (start, polished)]
        before, after = body_objective(case, torch.stack(fluences)).tolist()
        return polished if after <= before else start
