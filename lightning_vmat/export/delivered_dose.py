"""The delivered dose of an RTPLAN: gantry, leaves and monitor units move as DICOM defines."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.rtplan import RtPlan
from lightning_vmat.export.delivered_fluence import LEAF_STEP_MM, STEP_DEG, cut_into_pieces, delivered_fluence
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.body_dose import BodyDose

PAIRS = 4_000_000  # (sub-sector, voxel) pairs computed at once, about 0.5 GB


def delivered_dose(
    case: Case, plan: RtPlan, *, step_deg: float = STEP_DEG, leaf_step_mm: float = LEAF_STEP_MM
) -> Float[Tensor, " voxel"]:
    """Dose of the whole course on `case.body_index`, Gy, from gantry angles in the middle of sub-sectors.

    Args:
        case: patient, machine and beamlets, with the plan's widest jaws.
        plan: an RTPLAN; its `motions` are not used.
        step_deg: largest sub-sector of an arc.
        leaf_step_mm: largest leaf travel during which a leaf counts as still.

    Raises:
        ValueError: a case with a dose influence stored by control point, or a step that is not positive.
    """
    if case.influence_path is not None:
        raise ValueError(
            f"case {case.case_id}: stored dose influence of its control points only, expected a case whose dose is "
            "computed at any gantry angle"
        )
    if not (step_deg > 0 and leaf_step_mm > 0):
        raise ValueError(f"sub-sectors of {step_deg} deg, leaf steps of {leaf_step_mm} mm: expected more than 0")
    dose_gy = torch.zeros(len(case.body_index))
    size = max(1, PAIRS // len(case.body_index))
    for arc, beam_arc in zip(plan.arcs, plan.beam_arcs, strict=True):
        pieces = cut_into_pieces(beam_arc, step_deg, leaf_step_mm)
        for first in range(0, pieces.sub_sectors, size):
            part = range(first, min(first + size, pieces.sub_sectors))
            own = case.with_settings(arcs=(_part_of(arc, part, pieces.sub_sectors),), isocentre_mm=plan.isocentre_mm)
            fluence_mu = delivered_fluence(beam_arc, pieces, part, case.beamlets, case.machine)
            dose_gy += BodyDose(own).of_fluence(fluence_mu)
    return dose_gy


def _part_of(arc: Arc, part: range, sub_sectors: int) -> Arc:
    """A range of the equal sub-sectors of an arc, as an arc."""
    step_deg = arc.span_deg / sub_sectors
    return Arc(
        gantry_start_deg=(arc.gantry_start_deg + part.start * step_deg) % 360.0,
        gantry_stop_deg=(arc.gantry_start_deg + part.stop * step_deg) % 360.0,
        control_points=len(part),
        direction=arc.direction,
        collimator_deg=arc.collimator_deg,
        couch_deg=arc.couch_deg,
    )
