"""What a session keeps in memory for one geometry of a case: the planning problems and the dose operators."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose.blur import FINE_NODE_STEP_MM
from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.explore.cancelling import CancellableProjection, Check
from lightning_vmat.explore.generated import GeneratedFluence
from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.body_dose import BodyDose, with_half_sectors
from lightning_vmat.planning.dose_operator import dose_operator
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures

LATTICE_VOXELS = 40_000  # at most, for the quick dose that slices show until the whole body is computed
PART_VOXELS = 25_000  # of the body, between two moments at which the computation can end


class Workbench:
    """Problems and operators of a case with its jaws and arcs, built on first use and kept.

    Args:
        case: the case with its jaws and arcs; its wishes do not matter.
        voxels: size of the voxel sample on which plans are optimised.
        seed: seed of the voxel sample.
    """

    def __init__(self, case: Case, voxels: int, seed: int) -> None:
        self.case, self.voxels, self.seed = case, voxels, seed
        self.generated = GeneratedFluence()
        self._parts: list[DoseOperator] = []
        self._building = threading.Lock()

    def wished(self, wishes: Mapping[str, float]) -> Case:
        """Returns the case with these wishes and no others.

        Every plan keeps its case. What a case works out once does not depend on wishes, so all share it.
        """
        wished, worked_out = self.case.with_settings(wishes=dict(wishes)), ("body_index", "target", "beam_setup")
        vars(wished).update({name: getattr(self.case, name) for name in worked_out})
        return wished

    def problems(self, case: Case, check: Check) -> CaseProblems:
        """Returns the problems of a case of `wished`, whose dose calculations ask `check` first.

        No operator is built twice.
        """
        return _WishedProblems(case, self.voxels, self.seed, base=self._problems, check=check)

    def sample_dose(self, plan: Plan) -> Float[Tensor, " voxel"]:
        """Returns the delivered dose on the voxels of the whole problem, Gy."""
        return self._problems.whole.dose_of_mu(plan.fluence_mu(self.case.beam_setup))

    def target_dvh(self, plan: Plan) -> Dvh:
        """Returns the histogram of the foremost target, on all of its voxels and as exact as that of the body."""
        dose_gy = self._target_operator.forward(self.delivered(plan))
        return Dvh(dose_gy, torch.full_like(dose_gy, self.case.grid.voxel_volume_cc))

    @cached_property
    def surrogate(self) -> CurvatureSurrogate | None:
        """The surrogate of the problem's curvature for aperture optimization."""
        return QuasiNewtonApertures().surrogate_of(self.case.beam_setup, self._problems.whole)

    def quick_volume(self, fluence_mu: FluenceMap) -> Float[Tensor, "z y x"]:
        """Returns the dose of a fluence on a coarse lattice of voxels, interpolated to the grid; 0 outside the body."""
        index, stride = self._lattice
        values = torch.zeros(self.case.grid.voxel_count)
        values[index] = self._lattice_operator.forward(fluence_mu)
        if stride == 1:
            return values.reshape(self.case.grid.shape)
        known = torch.zeros(self.case.grid.voxel_count)
        known[index] = 1.0
        dose_gy = _spread(values.reshape(self.case.grid.shape), stride)
        share = _spread(known.reshape(self.case.grid.shape), stride)
        return dose_gy / share.clamp(min=1e-3) * self._in_body

    def body_dose(self, check: Check) -> BodyDose:
        """Returns the dose on every voxel of the body, computed in parts between which `check` is asked."""
        return _PartedBodyDose(self.case, self, check)

    def part(self, number: int) -> DoseOperator:
        """Returns the operator of a part of the body, for the half sectors of a plan."""
        with self._building:  # an export may compute beside the session's thread
            while len(self._parts) <= number:
                index = self.case.body_index.split(PART_VOXELS)[len(self._parts)]
                self._parts.append(dose_operator(self._half_sectors, index, FINE_NODE_STEP_MM))
            return self._parts[number]

    @property
    def part_count(self) -> int:
        """Number of parts of the body."""
        return -(-len(self.case.body_index) // PART_VOXELS)

    @cached_property
    def _target_operator(self) -> DoseOperator:
        index = self.case.structures[self.case.target_names[0]].flatten().nonzero()[:, 0]
        return dose_operator(self._half_sectors, index, FINE_NODE_STEP_MM)

    def delivered(self, plan: Plan) -> Float[Tensor, "sector leaf_pair beamlet"]:
        """Returns the fluence of each half sector; of each sector where the dose of these alone is known."""
        setup = self.case.beam_setup
        known = self.case.influence_path is not None
        return plan.fluence_mu(setup) if known else plan.half_sector_fluence_mu(setup)

    @cached_property
    def _problems(self) -> CaseProblems:
        return CaseProblems(self.case, self.voxels, self.seed)

    @cached_property
    def _half_sectors(self) -> Case:
        return self.case if self.case.influence_path is not None else with_half_sectors(self.case)

    @cached_property
    def _in_body(self) -> Float[Tensor, "z y x"]:
        return self.case.body_volume(torch.ones(len(self.case.body_index)))

    @cached_property
    def _lattice(self) -> tuple[Int[Tensor, " voxel"], int]:
        """Flat indices of the lattice's voxels, and its stride along each axis."""
        stride = 1
        while True:
            chosen = torch.zeros(self.case.grid.shape, dtype=torch.bool)
            chosen[::stride, ::stride, ::stride] = True
            index = self.case.body_index[chosen.flatten()[self.case.body_index]]
            if len(index) <= LATTICE_VOXELS:
                return index, stride
            stride += 1

    @cached_property
    def _lattice_operator(self) -> DoseOperator:
        return dose_operator(self.case, self._lattice[0])


@dataclass(frozen=True, kw_only=True)
class _WishedProblems(CaseProblems):
    """The problems of a case with wishes, with the operators of `base`, which ask `check` before a dose calculation."""

    base: CaseProblems
    check: Check

    @cached_property
    def whole(self) -> Problem:
        return self._wished(self.base.whole)

    @cached_property
    def part(self) -> Problem:
        return self._wished(self.base.part)

    @cached_property
    def small(self) -> Problem:
        return self._wished(self.base.small)

    def _wished(self, problem: Problem) -> Problem:
        projection = CancellableProjection(problem.projection.operator, self.check)
        wished = plan_objective(problem).with_wishes(self.case.wishes, f"case {self.case.case_id}")
        return replace(problem, objective=wished, projection=projection)


def plan_objective(problem: Problem) -> PlanObjective:
    """Returns the objective of a problem of a case, which knows structures and protocol."""
    if not isinstance(problem.objective, PlanObjective):
        raise TypeError(f"objective is a {type(problem.objective).__name__}, expected a PlanObjective")
    return problem.objective


@dataclass(frozen=True)
class _PartedBodyDose(BodyDose):
    """`BodyDose` of plans, part by part."""

    bench: Workbench
    check: Check

    def of_plan(self, plan: Plan) -> Float[Tensor, " voxel"]:
        fluence_mu = self.bench.delivered(plan)
        parts = []
        for number in range(self.bench.part_count):
            self.check()
            operator = self.bench.part(number)
            self.check()
            parts.append(operator.forward(fluence_mu))
        return torch.cat(parts)


def _spread(volume: Float[Tensor, "z y x"], stride: int) -> Float[Tensor, "z y x"]:
    """Interpolates linearly between every `stride`-th voxel; voxels beyond the last one get its value."""
    sizes = [(length - 1) // stride for length in volume.shape]
    fine = [stride * size + 1 for size in sizes]
    coarse = volume[::stride, ::stride, ::stride]
    inner = F.interpolate(coarse[None, None], size=fine, mode="trilinear", align_corners=True)
    z, y, x = (length - size for length, size in zip(volume.shape, fine, strict=True))
    return F.pad(inner, (0, x, 0, y, 0, z), mode="replicate")[0, 0]
