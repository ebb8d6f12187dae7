"""The planning problems of a case: dose projection, protocol objective and fluence scale on samples of voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lightning_vmat.dose.pooled_operator import PooledOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.ray_tracing import DepthFunction, radiological_depth, traced_once
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.plan.voxels import VoxelSample, sample_voxels
from lightning_vmat.planning.dose_operator import dose_operator

VOXELS = 40_000
"""Size of the voxel sample for plans of base size: the objective of the sample is at most 4.3 % below that of the whole
body in reference plans of 30 phantoms, with 30,000 voxels 6.4 %."""

PART = 1 / 8
"""Share of the voxels on which apertures are first optimised, 5,000 at base size. With 3,000 the objective after 20
evaluations was 1 to 2 % higher; 10,000 cost as much as they gain."""

SHARE = 1 / 16
"""Share of the voxels of a small problem: 2,500 at base size, where 10,000 gave no better and 1,500 worse plans."""

FEWEST_VOXELS = 200  # of a small problem
CELL_DEG, CELL_MM = 12.0, 10.0  # beamlets taken together in small problems: this part of the arc, and this width


def build_problem(
    case: Case, voxels: int = VOXELS, seed: int = 0, depth: DepthFunction = radiological_depth
) -> Problem:
    """Builds the problem that every fluence planner solves.

    Its unit of fluence `scale_mu` is that of the open conformal field whose mean dose in the target with the highest
    prescription equals this prescription, so that `x` is around one in all cases.

    >>> import lightning_vmat as vmat
    >>> problem = vmat.build_problem(vmat.phantom(0, size="tiny"), voxels=300)
    >>> dose_gy = problem.dose(problem.open_field)
    >>> dose_gy.shape == (problem.voxel_count,), bool(problem.objective(dose_gy) > 0)
    (True, True)

    Args:
        case: the case; its wishes are factors on the weights of the protocol's objectives.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.
        depth: computes the radiological depth of the sampled voxels, which takes nine tenths of the time.

    Raises:
        ValueError: a protocol or a stored influence that does not fit the case, or a target that receives no dose.
    """
    return _problem_on(case, sample_voxels(case, voxels, seed), depth)


def _problem_on(case: Case, sample: VoxelSample, depth: DepthFunction) -> Problem:
    projection = DoseProjection(dose_operator(case, sample.index, depth=depth))
    objective = PlanObjective.from_case(case, sample, load_protocol(case.protocol))
    open_field = conformal_field(case).float()
    foremost = case.target_names[0]
    inside = case.structures[foremost].flatten()[sample.index]
    open_dose_gy = float(projection(open_field)[inside].mean())
    if not open_dose_gy > 0:
        raise ValueError(f"case {case.case_id}: an open field of 1 MU gives {foremost} {open_dose_gy} Gy, expected > 0")
    return Problem(
        name=case.case_id,
        projection=projection,
        objective=objective,
        scale_mu=case.prescription_gy[foremost] / open_dose_gy,
        open_field=open_field,
        centres_mm=case.grid.centres_mm(sample.index).float(),
        in_target=case.target.flatten()[sample.index],
    )


def pooled_problem(case: Case, problem: Problem) -> Problem:
    """Returns a problem of few voxels for many evaluations, with its beamlets pooled, see `PooledOperator`."""
    sector_deg = float(case.control_points.sector_deg.median())
    together = max(1, round(CELL_DEG / sector_deg)), 1, max(1, round(CELL_MM / case.beamlets.beamlet_width_mm))
    return replace(problem, projection=DoseProjection(PooledOperator.of(problem.projection.operator, together)))


def small_voxels(voxels: int) -> int:
    """Returns the size of the small problem's voxel sample, for a problem of this size."""
    return min(voxels, max(FEWEST_VOXELS, round(SHARE * voxels)))


@dataclass(frozen=True)
class CaseProblems:
    """The problems of a case on three samples of its voxels, each built at its first use; rays are traced once for all.

    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.planning.problem import CaseProblems
    >>> problems = CaseProblems(vmat.phantom(0, size="tiny"), voxels=3000)
    >>> [problem.voxel_count for problem in (problems.whole, problems.part, problems.small)]
    [3000, 375, 200]

    Args:
        case: the case.
        voxels: size of the sample of the whole problem.
        seed: seed of this sample; the small problem has the next one, the part the one after it.
    """

    case: Case
    voxels: int = VOXELS
    seed: int = 0

    @cached_property
    def whole(self) -> Problem:
        """The problem on the whole sample, on which a plan is optimised in the end."""
        return self._on(0)

    @cached_property
    def part(self) -> Problem:
        """A problem on `PART` of the voxels."""
        return self._on(2)

    @cached_property
    def small(self) -> Problem:
        """The small problem, on `SHARE` of the voxels and with pooled beamlets, see `pooled_problem`."""
        return pooled_problem(self.case, self._on(1))

    def _on(self, number: int) -> Problem:
        return _problem_on(self.case, self._samples[number], self._depth)

    @cached_property
    def _samples(self) -> list[VoxelSample]:
        """Samples of the whole, the small and the part problem; each has the next seed."""
        counts = self.voxels, small_voxels(self.voxels), max(1, round(PART * self.voxels))
        return [sample_voxels(self.case, count, self.seed + number) for number, count in enumerate(counts)]

    @cached_property
    def _depth(self) -> DepthFunction:
        return traced_once(self.case, torch.cat([sample.index for sample in self._samples]))
