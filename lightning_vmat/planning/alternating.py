"""Leaf sequencing and fluence optimization in turns, until the fluence is one that apertures can deliver."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.baselines.lbfgs import LBFGS, LBFGSState
from lightning_vmat.l2o.descent import scaled_start
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import QuasiNewton
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.progress import track


@dataclass(frozen=True)
class AlternatingSequencing:
    """The alternating direction method of multipliers, one side of which is leaf sequencing.

    Minimises `objective(D x)` with `x` among the maps that one aperture a control point delivers under the machine's
    limits. In turns, the running sum `u` of what sequencing missed is added to the fluence, this is sequenced
    (`z`), and the fluence is optimised with a pull toward `z - u`, which grows from round to round. So the fluence
    comes to have two levels where that costs least dose, instead of losing what sequencing rounds away at the end.
    Apertures are no convex set: the method is a heuristic here, and ends where the pull has become strong.

    Args:
        rounds: turns.
        evaluations: dose evaluations of fluence optimization in each.
        pull: strength at first, over the mean of the problem's majoriser.
        growth: of the pull from one turn to the next.
        progress: show a progress bar.

    Reference: Boyd, Parikh, Chu, Peleato, Eckstein, Found Trends Mach Learn 3:1 (2011), sections 3.1.1 and 9.1.
    """

    rounds: int = 70
    evaluations: int = 2
    pull: float = 5e-4
    growth: float = 1.068
    progress: bool = False

    def sequence(
        self, case: Case, problem: Problem, x: Float[Tensor, "control_point leaf_pair beamlet"], trace: Trace
    ) -> Plan:
        """The plan of a fluence map that is given up to become deliverable.

        Args:
            case: gives beamlets, machine and control points.
            problem: objective of the dose.
            x: fluence over `problem.scale_mu` to start from.
            trace: takes the course; an objective is that of the fluence, which is not yet deliverable.

        Returns:
            A plan without a violation.
        """
        begin, missed = time.perf_counter(), torch.zeros_like(x)
        x, dose_gy, _, majoriser = scaled_start(problem, x)
        pull, optimizer = self.pull * float(majoriser.mean()), LBFGS()
        model = QuasiNewton(majoriser, optimizer.reach, optimizer.memory)
        for turn in track(range(self.rounds), "sequencing", shown=self.progress, lasting=False):
            plan = deliverable(case, problem, x + missed)
            delivered = plan.fluence_mu(case.beam_setup) / problem.scale_mu
            missed = missed + x - delivered
            pulled = PulledProblem.of(problem, delivered - missed, pull)
            seen = torch.cat((dose_gy, x.flatten()))
            state = LBFGSState(
                x, seen, pulled.objective(seen), 0, replace(model, majoriser=majoriser + pull, last=None)
            )
            for _ in range(self.evaluations):
                state = optimizer.update(pulled, state)
            x, dose_gy, model = state.x, state.dose_gy[: problem.voxel_count], state.model
            missed = missed / self.growth  # the multiplier stays; it is `pull` times this
            pull *= self.growth
            spent = 1 + (turn + 1) * self.evaluations
            trace.add("sequencing", spent, time.perf_counter() - begin, float(problem.objective(dose_gy)))
        trace.spend(1 + self.rounds * self.evaluations)
        return deliverable(case, problem, x + missed)


def deliverable(case: Case, problem: Problem, x: Float[Tensor, "control_point leaf_pair beamlet"]) -> Plan:
    """The sequenced plan of a fluence over `problem.scale_mu`, without a violation."""
    plan = sequence(x.clamp(min=0) * problem.scale_mu, case.beamlets)
    return project_to_limits(plan, case.beam_setup)
