"""The beams of a case from DICOM: those of its plan, or a full arc about its target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.dicom_references import lying_supine
from lightning_vmat.cases.dicom.rtplan import RtPlan
from lightning_vmat.cases.sizes import Size
from lightning_vmat.objectives.protocol import Protocol
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid, bev_extent, fit_beamlet_grid
from lightning_vmat.plan.machine import Machine

GANTRY_DEG, COLLIMATOR_DEG = 180.0, 10.0
FIELD_MARGIN_MM = 5.0  # margin around the target's projection in a fixed field
SAME_DOSE = 0.01


@dataclass(frozen=True)
class Beams:
    """Isocentre, arcs and beamlets of a case, and its plan.

    Args:
        isocentre_mm: patient LPS.
        arcs: arcs, converted to a head-first supine patient.
        beamlets: beamlet grid.
        plan: leaf tips and monitor units; None without a plan.
    """

    isocentre_mm: tuple[float, float, float]
    arcs: tuple[Arc, ...]
    beamlets: BeamletGrid
    plan: Plan | None


def planned_beams(plan: RtPlan, protocol: Protocol, machine: Machine, size: Size) -> Beams:
    """The beams of an RTPLAN.

    Raises:
        ValueError: another prescription or number of fractions than the protocol's, or another MLC.
    """
    dose_gy = max(plan.prescription_gy, default=None)
    expected_gy = max(protocol.prescription_gy.values())
    other_dose = dose_gy is not None and abs(dose_gy - expected_gy) > SAME_DOSE * expected_gy
    if other_dose or plan.fractions != protocol.fractions:
        prescribed = f"{dose_gy:g} Gy in " if dose_gy is not None else ""
        raise ValueError(
            f"{plan.path}: {prescribed}{plan.fractions} fractions, expected {expected_gy:g} Gy in {protocol.fractions} "
            f"as in protocol {protocol.name}; choose another --protocol, or --use_plan false"
        )
    beamlets = plan.beamlet_grid(machine, size.beamlet_width_mm, size.leaf_pairs_per_row)
    return Beams(plan.isocentre_mm, plan.arcs, beamlets, plan.on_rows(beamlets))


def default_beams(
    points_mm: Float[Tensor, "voxel 3"],
    patient_position: str,
    machine: Machine,
    size: Size,
    folder: Path,
    isocentre_mm: tuple[float, float, float] | None = None,
) -> Beams:
    """One full arc about the centre of the target, with the phantoms' field if the target fits in it.

    Args:
        points_mm: centres of the target's voxels.
        patient_position: patient position, such as HFS.
        machine: gives leaf boundaries.
        size: gives control points and beamlets.
        folder: folder of the patient, for messages.
        isocentre_mm: isocentre in place of the targets' centre.

    Raises:
        ValueError: a target larger than any field.
    """
    x, y, z = isocentre_mm or tuple(round(float(value), 1) for value in points_mm.double().mean(dim=0))
    gantry_deg, couch_deg = lying_supine(patient_position, GANTRY_DEG, 0.0)
    arc = Arc(gantry_deg, gantry_deg, size.control_points, collimator_deg=COLLIMATOR_DEG, couch_deg=couch_deg)
    points = ControlPoints.from_arcs((arc,))
    field = size.centred_field(machine)
    lowest, highest = bev_extent(points_mm, points, (x, y, z), machine.sad_mm)
    low = torch.tensor((field.beamlet_start_mm, field.leaf_edges_mm[0])) + FIELD_MARGIN_MM
    high = torch.tensor((field.beamlet_stop_mm, field.leaf_edges_mm[-1])) - FIELD_MARGIN_MM
    if bool((lowest < low).any()) or bool((highest > high).any()):
        try:
            field = fit_beamlet_grid(
                points_mm,
                points,
                (x, y, z),
                machine,
                beamlet_width_mm=size.beamlet_width_mm,
                leaf_pairs_per_row=size.leaf_pairs_per_row,
            )
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    return Beams((x, y, z), (arc,), field, None)
