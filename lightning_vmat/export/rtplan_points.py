"""Dose references and the tolerance table of an RTPLAN, which planning systems expect at import."""

from __future__ import annotations

import torch
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lightning_vmat.dose.blur import FINE_NODE_STEP_MM
from lightning_vmat.export.dicom_objects import RESEARCH_LABEL, decimal, decimals, new_uid
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import Machine
from lightning_vmat.planning.dose_operator import dose_operator

POINT_PLACES, DOSE_PLACES = 4, 6
TOLERANCES = {
    "GantryAngleTolerance": 1.0,
    "BeamLimitingDeviceAngleTolerance": 1.0,
    "PatientSupportAngleTolerance": 1.0,
    "TableTopVerticalPositionTolerance": 20.0,
    "TableTopLongitudinalPositionTolerance": 20.0,
    "TableTopLateralPositionTolerance": 20.0,
}
"""Degrees and mm; usual values, which the site's own table replaces at import."""
COLLIMATOR_TOLERANCE_MM = 2.0
TABLE_NUMBER = 1


def reference_point_mm(case: Case) -> tuple[float, float, float]:
    """Centre of the voxel that contains the isocentre, LPS mm. The dose of each arc is known there."""
    x, y, z = case.grid.centres_mm(torch.tensor([_isocentre_voxel(case)]))[0].tolist()
    return x, y, z


def arc_doses_gy(case: Case, plan: Plan) -> list[float]:
    """Dose of each arc at the reference point in one fraction, Gy."""
    operator = dose_operator(case, torch.tensor([_isocentre_voxel(case)]), FINE_NODE_STEP_MM)
    fluence_mu, number = plan.fluence_mu(case.beam_setup), case.control_points.arc_index
    arcs = (fluence_mu * (number == arc)[:, None, None] for arc in range(len(case.arcs)))
    return [float(operator.forward(arc_mu)) / case.fractions for arc_mu in arcs]


def dose_references(case: Case) -> list[Dataset]:
    """Dose references: each target with its prescription, and the reference point."""
    items = []
    for number, name in enumerate(case.target_names, start=1):
        item = _dose_reference(number, "SITE", name)
        item.TargetPrescriptionDose = decimal(case.prescription_gy[name], 4)
        items.append(item)
    point = _dose_reference(len(items) + 1, "COORDINATES", "Isocentre")
    point.DoseReferencePointCoordinates = decimals(reference_point_mm(case), POINT_PLACES)
    return [*items, point]


def _dose_reference(number: int, kind: str, description: str) -> Dataset:
    item = Dataset()
    item.DoseReferenceNumber, item.DoseReferenceUID = number, new_uid()
    item.DoseReferenceStructureType, item.DoseReferenceType = kind, "TARGET"
    item.DoseReferenceDescription = description
    return item


def tolerance_table(machine: Machine) -> Dataset:
    """Tolerance table: allowed deviations of the linac from the plan."""
    table = Dataset()
    table.ToleranceTableNumber, table.ToleranceTableLabel = TABLE_NUMBER, RESEARCH_LABEL
    for keyword, value in TOLERANCES.items():
        setattr(table, keyword, decimal(value, 1))
    table.BeamLimitingDeviceToleranceSequence = Sequence()
    for kind in (*(["ASYMX"] if machine.x_jaws else []), "ASYMY", "MLCX"):
        device = Dataset()
        device.RTBeamLimitingDeviceType = kind
        device.BeamLimitingDevicePositionTolerance = decimal(COLLIMATOR_TOLERANCE_MM, 1)
        table.BeamLimitingDeviceToleranceSequence.append(device)
    return table


def _isocentre_voxel(case: Case) -> int:
    """Flat index of the voxel that contains the isocentre."""
    x, y, z = case.grid.index_coordinates(torch.tensor(case.isocentre_mm)).round().long().tolist()
    nz, ny, nx = case.grid.shape
    x, y, z = (min(max(at, 0), count - 1) for at, count in ((x, nx), (y, ny), (z, nz)))
    return int((z * ny + y) * nx + x)
