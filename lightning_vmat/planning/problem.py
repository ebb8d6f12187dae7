"""The planning problem of a case: dose projection, protocol objective and fluence scale on a sample of voxels."""

from __future__ import annotations

from dataclasses import replace

from lightning_vmat.dose.pooled_operator import PooledOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.ray_tracing import DepthFunction, radiological_depth
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.plan.voxels import sample_voxels
from lightning_vmat.planning.dose_operator import dose_operator

VOXELS = 30_000
"""Size of the voxel sample for plans of base size: with 15,000 voxels the objective of the sample was up to 8 % below
that of the whole body, with 30,000 up to 2 %, at 1.5 times the time of a dose evaluation."""

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
    sample = sample_voxels(case, voxels, seed)
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


def build_small_problem(case: Case, voxels: int, seed: int = 0) -> Problem:
    """Builds a small problem for many evaluations: few voxels, and beamlets pooled, see `PooledOperator`.

    Args:
        case: the case.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.

    Raises:
        ValueError: as `build_problem`.
    """
    problem = build_problem(case, voxels, seed)
    sector_deg = float(case.control_points.sector_deg.median())
    together = max(1, round(CELL_DEG / sector_deg)), 1, max(1, round(CELL_MM / case.beamlets.beamlet_width_mm))
    return replace(problem, projection=DoseProjection(PooledOperator.of(problem.projection.operator, together)))
