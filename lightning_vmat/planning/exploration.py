"""Exploration: cheap stages on a small problem that look for a good local minimum of the deliverable plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.alternating import AlternatingSequencing, deliverable
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.problem import CaseProblems, small_voxels
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sliding_windows import crossing_sectors, sliding_windows

WIDEST_DEG = 6.0  # wider sectors: the alternation, which sequences leaves at rest, ends worse than the open field

SLOW_SECTORS, SLOW_ROUNDS, SLOW_PULL = 9.0, 40, 2e-2
"""Sectors to cross the open field, above which leaves are slow for one aperture per sector; rounds at most, and the
pull, of the alternation there. Prostates need at most 7 sectors, pelvic nodes 14, head and neck 10 to 21."""

SLOW_APERTURES = 60
"""Evaluations of aperture optimization there, as far as the budget reaches."""

SWEPT_SECTORS = 12.0
"""Sectors above which the alternation starts from sliding windows."""


@dataclass(frozen=True)
class Explored:
    """What exploration found.

    Args:
        plan: the plan.
        wanted_mu: fluence before leaf sequencing, MU.
        sequenced_mu: fluence that is delivered right after leaf sequencing, MU.
    """

    plan: Plan
    wanted_mu: FluenceMap
    sequenced_mu: FluenceMap


@dataclass(frozen=True)
class Exploration:
    """Fluence optimization, alternating sequencing, and aperture optimization, all on a small problem.

    Aperture optimizers end in the nearest local minimum. The alternation crosses many on its way from a fluence map to
    a plan, and needs the dose only roughly: its problem has few voxels and pooled beamlets. Where leaves are slow for
    the width of the field, its long form ends far from any good plan; there, it can start from sliding windows.

    Args:
        rounds: rounds of alternating sequencing, at most; with 0 the fluence is sequenced once.
        fluence_evaluations: evaluations of fluence optimization before it.
        aperture_evaluations: evaluations of aperture optimization after it; where leaves are slow, up to
            `SLOW_APERTURES` if the budget has them left.
        pull: strength of the alternation's pull in the first round. A start that is nearly deliverable needs a
            stronger one, so that its pattern survives.
        optimizer: optimizer of the fluence.
        budget: what exploration may cost, in dose evaluations of the whole problem; it gets as many rounds as fit.
        fewest_rounds: with fewer, exploration does not pay.
        sweeps: where leaves are slow, fewer rounds with a stronger pull, and from sliding windows where they are very
            slow; not for fluence whose pattern is to survive.
        progress: show progress bars.
    """

    rounds: int
    fluence_evaluations: int
    aperture_evaluations: int
    pull: float = 5e-4
    optimizer: Optimizer[Any] = field(default_factory=LBFGS)
    budget: float = math.inf
    fewest_rounds: int = 0
    sweeps: bool = False
    progress: bool = False

    def cost(self, voxels: int) -> float:
        """Returns what exploration costs, in dose evaluations of a problem of so many voxels."""
        alternating = self._alternating.cost if self.rounds else 0
        stages = self.fluence_evaluations + alternating + self.aperture_evaluations
        return stages * small_voxels(voxels) / voxels

    @property
    def _alternating(self) -> AlternatingSequencing:
        return AlternatingSequencing(self.rounds, pull=self.pull, progress=self.progress)

    def fitted(self, case: Case, voxels: int) -> Exploration | None:
        """Returns the exploration of a case within the budget; None if its sectors are too wide or nothing fits.

        Args:
            case: the case, with its jaws.
            voxels: size of the whole problem.
        """
        if float(case.control_points.sector_deg.max()) > WIDEST_DEG:
            return None
        sectors = crossing_sectors(conformal_field(case).float(), case.beam_setup)
        slow = sectors > SLOW_SECTORS
        found = replace(self, sweeps=self.sweeps and sectors > SWEPT_SECTORS)
        if slow and self.sweeps:
            found = replace(found, rounds=min(self.rounds, SLOW_ROUNDS), pull=SLOW_PULL, fewest_rounds=0)
        if math.isfinite(self.budget):
            one, two = (replace(found, rounds=rounds).cost(voxels) for rounds in (1, 2))
            fitting = int(max(0.0, 1 + (self.budget - one) / (two - one) + 1e-9))
            found = replace(found, rounds=min(found.rounds, fitting))
        if found.rounds < found.fewest_rounds or found.cost(voxels) > self.budget + 1e-6:
            return None
        if slow:
            left = (self.budget - found.cost(voxels)) * voxels / small_voxels(voxels) + 1e-6
            most = max(SLOW_APERTURES, self.aperture_evaluations)
            found = replace(found, aperture_evaluations=math.floor(min(found.aperture_evaluations + left, most)))
        return found

    def explore(self, problems: CaseProblems, x: FluenceMap, trace: Trace) -> Explored:
        """Returns a plan from a fluence map.

        Args:
            problems: the small problem of the case; the whole one gives unit of fluence and number of voxels.
            x: fluence over `scale_mu` of the whole problem.
            trace: records the course; evaluations count as their share of the voxels.
        """
        case = problems.case
        with trace.stage("problem"):
            whole, small = problems.whole, problems.small
            x = x * (whole.scale_mu / small.scale_mu)
        if isinstance(self.optimizer, nn.Module):
            self.optimizer.to(x.device)
        with trace.sample(small.voxel_count / whole.voxel_count):
            with trace.stage("fluence"):
                x = run(small, self.optimizer, x, self.fluence_evaluations).x if self.fluence_evaluations else x
                trace.spend(self.fluence_evaluations)
            with trace.stage("sequencing"):
                plan = self._sequenced(case.beam_setup, small, x, trace)
            sequenced_mu = plan.fluence_mu(case.beam_setup)
            with trace.stage("exploration"):
                apertures = QuasiNewtonApertures(self.aperture_evaluations, progress=self.progress)
                plan = apertures.refine(case.beam_setup, small, plan, trace, "exploration")
        return Explored(plan, x * small.scale_mu * case.beamlets.inside_jaws.to(x), sequenced_mu)

    def _sequenced(self, setup: BeamSetup, small: Problem, x: FluenceMap, trace: Trace) -> Plan:
        if self.sweeps:
            swept = project_to_limits(sliding_windows(x.clamp(min=0) * small.scale_mu, setup), setup)
            if not self.rounds:
                return swept
            x = swept.fluence_mu(setup) / small.scale_mu
        return self._alternating.sequence(setup, small, x, trace) if self.rounds else deliverable(setup, small, x)
