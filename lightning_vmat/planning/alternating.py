"""Alternating leaf sequencing and fluence optimization, until apertures can deliver the fluence."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from lightning_vmat.l2o.baselines.lbfgs import LBFGS, LBFGSState
from lightning_vmat.l2o.descent import scaled_start
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import QuasiNewton
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.progress import track


@dataclass(frozen=True)
class AlternatingSequencing:
    """The alternating direction method of multipliers (ADMM), with leaf sequencing as the projection.

    Minimises `objective(D x)` over the maps `x` that one aperture per control point can deliver within the machine's
    limits. Each round sequences the fluence plus the running sum `u` of the sequencing errors, which gives `z`, and
    then optimises the fluence with a pull toward `z - u`. The pull grows from round to round, so that the fluence
    becomes two-level where that costs the least, instead of losing the sequencing error at the end. Deliverable maps
    are not a convex set: the method is a heuristic here, and ends when the pull has become strong.

    Args:
        rounds: number of rounds.
        evaluations: dose evaluations of fluence optimization in each round.
        pull: strength of the pull in the first round, over the mean of the problem's majoriser.
        last_pull: strength after the last round; it grows by the same factor from round to round.
        progress: show a progress bar.

    Reference: Boyd, Parikh, Chu, Peleato, Eckstein, Found Trends Mach Learn 3:1 (2011), sections 3.1.1, 3.4.1 and 9.1.
    """

    rounds: int = 140
    evaluations: int = 2
    pull: float = 5e-4
    last_pull: float = 0.05
    progress: bool = False

    @property
    def cost(self) -> int:
        """Dose evaluations of all rounds and of setting up."""
        return 1 + self.rounds * self.evaluations

    def sequence(self, setup: BeamSetup, problem: Problem, x: FluenceMap, trace: Trace) -> Plan:
        """Returns a plan for a fluence map, which changes in the process to become deliverable.

        Args:
            setup: control points, beamlets with jaws, and machine.
            problem: objective of the dose.
            x: fluence over `problem.scale_mu` to start from.
            trace: records the course; its objective is that of the fluence, which is not yet deliverable.

        Returns:
            A plan without violations.
        """
        begin, missed = time.perf_counter(), torch.zeros_like(x)
        x, dose_gy, _, majoriser = scaled_start(problem, x)
        growth = (self.last_pull / self.pull) ** (1 / self.rounds)
        pull, optimizer = self.pull * float(majoriser.mean()), LBFGS()
        model = QuasiNewton(majoriser, optimizer.reach, optimizer.memory)
        for turn in track(range(self.rounds), "sequencing", shown=self.progress, lasting=False):
            plan = deliverable(setup, problem, x + missed)
            delivered = plan.fluence_mu(setup) / problem.scale_mu
            missed = missed + x - delivered
            pulled = PulledProblem.of(problem, delivered - missed, pull)
            seen = torch.cat((dose_gy, x.flatten()))
            # the pull changes slowly, so the pairs are kept, with the pull on the diagonal; `last` is not, because its
            # gradient belongs to the previous target
            state = LBFGSState(
                x, seen, pulled.objective(seen), 0, replace(model, majoriser=majoriser + pull, last=None)
            )
            for _ in range(self.evaluations):
                state = optimizer.update(pulled, state)
            x, dose_gy, model = state.x, state.dose_gy[: problem.voxel_count], state.model
            missed = missed / growth  # keeps the multiplier, which is `pull` times this (section 3.4.1)
            pull *= growth
            spent = 1 + (turn + 1) * self.evaluations
            trace.add("sequencing", spent, time.perf_counter() - begin, float(problem.objective(dose_gy)))
        trace.spend(self.cost)
        return deliverable(setup, problem, x + missed)


def deliverable(setup: BeamSetup, problem: Problem, x: FluenceMap) -> Plan:
    """Returns the sequenced plan of a fluence over `problem.scale_mu`, without violations."""
    plan = sequence(x.clamp(min=0) * problem.scale_mu, setup.beamlets)
    return project_to_limits(plan, setup)
