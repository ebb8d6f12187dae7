"""The planning problem of a case: dose projection, protocol objective and fluence scale on a sample of voxels."""

from __future__ import annotations

from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.plan.voxels import sample_voxels
from lightning_vmat.planning.dose_operator import dose_operator

VOXELS = 30_000
"""Size of the voxel sample of plans of base size: with 15,000 the objective of the sample came out up to 8 % below that
of the whole body, with 30,000 up to 2 %, at one and a half times the time of a dose evaluation."""


def build_problem(case: Case, voxels: int = VOXELS, seed: int = 0) -> Problem:
    """The problem that every fluence planner solves.

    Its unit of fluence `scale_mu` is that of the open conformal field which gives the foremost target its
    prescription on average, so that a fluence `x` near one is near a treatment whatever the case.

    Args:
        case: the case; its wishes are factors on the weights of the protocol's objectives.
        voxels: size of the voxel sample.
        seed: of the voxel sample.

    Raises:
        ValueError: a protocol or a stored influence that does not fit the case, or a target that gets no dose.
    """
    sample = sample_voxels(case, voxels, seed)
    projection = DoseProjection(dose_operator(case, sample.index))
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
