"""Writes a plan as DICOM RTPLAN: dynamic arcs, unapproved and marked as research."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, RTPlanStorage, RTStructureSetStorage

from lightning_vmat.cases.dicom.dicom_references import PatientLink, lying_supine
from lightning_vmat.export.arc_delivery import ArcDelivery, arc_deliveries
from lightning_vmat.export.dicom_objects import (
    RESEARCH_LABEL,
    RESEARCH_TEXT,
    decimal,
    decimals,
    new_object,
    reference,
    save,
)
from lightning_vmat.export.rtplan_points import (
    DOSE_PLACES,
    POINT_PLACES,
    TABLE_NUMBER,
    arc_doses_gy,
    dose_references,
    reference_point_mm,
    tolerance_table,
)
from lightning_vmat.export.surface_distance import surface_distance_mm
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import Machine

ROTATION = {"clockwise": "CW", "counterclockwise": "CC"}
GANTRY_STOP_DEG, OVERTRAVEL_DEG = 180.0, 5.0  # below the couch; linacs turn a few degrees past it
ANGLE_PLACES, LEAF_PLACES, WEIGHT_PLACES, MU_PLACES = 6, 4, 10, 6


def write_rtplan(path: Path, case: Case, plan: Plan, link: PatientLink) -> UID:
    """Write a plan for one fraction group; see `ArcDelivery` for how sectors become control points.

    Args:
        path: path of the DICOM file.
        case: the planned case.
        plan: plan within the limits of the machine.
        link: DICOM objects of the patient.

    Returns:
        SOP Instance UID of the plan.

    Raises:
        ValueError: a plan that breaks limits of the machine, or an arc across the gantry's stop.
    """
    check_gantry_stop(case, link)
    deliveries = arc_deliveries(case, plan)
    data = new_object(RTPlanStorage, "RTPLAN", link)
    data.RTPlanLabel, data.RTPlanName, data.RTPlanDescription = RESEARCH_LABEL, RESEARCH_TEXT, RESEARCH_TEXT
    data.RTPlanDate, data.RTPlanTime = data.InstanceCreationDate, data.InstanceCreationTime
    data.PlanIntent, data.RTPlanGeometry, data.ApprovalStatus = "RESEARCH", "PATIENT", "UNAPPROVED"
    data.ReferencedStructureSetSequence = Sequence([reference(RTStructureSetStorage, link.structure_set_uid)])
    data.DoseReferenceSequence = Sequence(dose_references(case))
    data.ToleranceTableSequence = Sequence([tolerance_table(case.machine)])
    data.PatientSetupSequence = Sequence([_patient_setup(link)])
    data.FractionGroupSequence = Sequence([_fraction_group(case, plan, deliveries)])
    data.BeamSequence = Sequence(
        _beam(number, case, arc, delivery, link)
        for number, (arc, delivery) in enumerate(zip(case.arcs, deliveries, strict=True), start=1)
    )
    save(data, path)
    return UID(data.SOPInstanceUID)


def check_gantry_stop(case: Case, link: PatientLink) -> None:
    """Raise a ValueError if an arc crosses the gantry's stop, at the patient's true position."""
    for number, arc in enumerate(case.arcs, start=1):
        start_deg, stop_deg = (
            lying_supine(link.patient_position, gantry_deg, 0.0)[0]
            for gantry_deg in (arc.gantry_start_deg, arc.gantry_stop_deg)
        )
        sense = 1.0 if arc.direction == "clockwise" else -1.0
        past_stop_deg = (sense * (start_deg - GANTRY_STOP_DEG) + OVERTRAVEL_DEG) % 360.0 - OVERTRAVEL_DEG
        if past_stop_deg + abs(arc.span_deg) > 360.0 + OVERTRAVEL_DEG:
            raise ValueError(
                f"case {case.case_id}: arc {number} turns from {start_deg:g} to {stop_deg:g} deg {arc.direction} about "
                f"a patient in position {link.patient_position}, expected an arc that does not cross the gantry's stop "
                f"at {GANTRY_STOP_DEG:g} deg"
            )


def _patient_setup(link: PatientLink) -> Dataset:
    item = Dataset()
    item.PatientSetupNumber, item.PatientPosition, item.SetupTechnique = 1, link.patient_position, "ISOCENTRIC"
    return item


def _fraction_group(case: Case, plan: Plan, deliveries: list[ArcDelivery]) -> Dataset:
    group = Dataset()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, case.fractions
    group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = len(deliveries), 0
    group.ReferencedBeamSequence = Sequence()
    point_mm, doses_gy = reference_point_mm(case), arc_doses_gy(case, plan)
    for number, (delivery, dose_gy) in enumerate(zip(deliveries, doses_gy, strict=True), start=1):
        beam = Dataset()
        beam.ReferencedBeamNumber = number
        beam.BeamDoseSpecificationPoint = decimals(point_mm, POINT_PLACES)
        beam.BeamDose = decimal(dose_gy, DOSE_PLACES)
        beam.BeamMeterset = decimal(float(delivery.cumulative_mu[-1]), MU_PLACES)
        group.ReferencedBeamSequence.append(beam)
    return group


def _beam(number: int, case: Case, arc: Arc, delivery: ArcDelivery, link: PatientLink) -> Dataset:
    machine = case.machine
    beam = Dataset()
    beam.BeamNumber, beam.BeamName, beam.BeamDescription = number, f"Arc {number}", RESEARCH_TEXT
    beam.BeamType, beam.RadiationType, beam.TreatmentDeliveryType = "DYNAMIC", "PHOTON", "TREATMENT"
    beam.TreatmentMachineName = machine.name[:16]  # SH
    beam.PrimaryDosimeterUnit, beam.SourceAxisDistance = "MU", decimal(machine.sad_mm, 1)
    fluence = Dataset()
    fluence.FluenceMode = "STANDARD" if machine.flattening_filter else "NON_STANDARD"
    if not machine.flattening_filter:
        fluence.FluenceModeID = "FFF"
    beam.PrimaryFluenceModeSequence = Sequence([fluence])
    beam.BeamLimitingDeviceSequence = Sequence(_devices(machine))
    beam.ReferencedPatientSetupNumber, beam.ReferencedToleranceTableNumber = 1, TABLE_NUMBER
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.FinalCumulativeMetersetWeight = "1"
    beam.NumberOfControlPoints = len(delivery.gantry_deg)
    beam.ControlPointSequence = Sequence(
        _control_point(i, arc, delivery, link) for i in range(len(delivery.gantry_deg))
    )
    distances_mm = surface_distance_mm(case, arc, delivery.gantry_deg).tolist()
    for point, distance_mm in zip(beam.ControlPointSequence, distances_mm, strict=True):
        point.SourceToSurfaceDistance = decimal(distance_mm, 1)
    _set_up(beam.ControlPointSequence[0], case, arc, link)
    beam.ControlPointSequence[-1].GantryRotationDirection = "NONE"
    return beam


def _devices(machine: Machine) -> list[Dataset]:
    devices = []
    jaws = (("ASYMX", 1), ("ASYMY", 1)) if machine.x_jaws else (("ASYMY", 1),)
    for kind, pairs in (*jaws, ("MLCX", len(machine.leaf_edges_mm) - 1)):
        device = Dataset()
        device.RTBeamLimitingDeviceType, device.NumberOfLeafJawPairs = kind, pairs
        devices.append(device)
    devices[-1].LeafPositionBoundaries = decimals(machine.leaf_edges_mm, 3)
    return devices


def _control_point(index: int, arc: Arc, delivery: ArcDelivery, link: PatientLink) -> Dataset:
    """A control point, with the attributes that change from point to point."""
    point = Dataset()
    point.ControlPointIndex = index
    total_mu = float(delivery.cumulative_mu[-1])
    point.CumulativeMetersetWeight = decimal(float(delivery.cumulative_mu[index]) / total_mu, WEIGHT_PLACES)
    gantry_deg, _ = lying_supine(link.patient_position, float(delivery.gantry_deg[index]), 0.0)
    point.GantryAngle = decimal(gantry_deg, ANGLE_PLACES)
    point.GantryRotationDirection = ROTATION[arc.direction]
    tips_mm = [*delivery.left_mm[index].tolist(), *delivery.right_mm[index].tolist()]
    point.BeamLimitingDevicePositionSequence = Sequence([_position("MLCX", tips_mm)])
    return point


def _set_up(point: Dataset, case: Case, arc: Arc, link: PatientLink) -> None:
    """Add the constant attributes of an arc to its first control point."""
    point.NominalBeamEnergy = decimal(case.machine.energy_mv, 3)
    point.DoseRateSet = decimal(60 * case.machine.dose_rate_mu_per_s, 3)
    x1, x2, y1, y2 = case.beamlets.field_mm
    jaws = [_position("ASYMY", [y1, y2])]  # at the edges of the field, outside which no dose is computed
    if case.machine.x_jaws:
        limit_mm = case.machine.max_leaf_position_mm
        jaws.insert(0, _position("ASYMX", [max(x1, -limit_mm), min(x2, limit_mm)]))
    point.BeamLimitingDevicePositionSequence = Sequence([*jaws, *point.BeamLimitingDevicePositionSequence])
    _, couch_deg = lying_supine(link.patient_position, 0.0, arc.couch_deg)
    point.BeamLimitingDeviceAngle = decimal(arc.collimator_deg % 360.0, ANGLE_PLACES)
    point.PatientSupportAngle = decimal(couch_deg, ANGLE_PLACES)
    point.TableTopEccentricAngle = "0"
    point.BeamLimitingDeviceRotationDirection = point.PatientSupportRotationDirection = "NONE"
    point.TableTopEccentricRotationDirection = "NONE"
    point.TableTopVerticalPosition = point.TableTopLongitudinalPosition = point.TableTopLateralPosition = None
    point.IsocenterPosition = decimals(case.isocentre_mm, LEAF_PLACES)


def _position(kind: str, values_mm: list[float]) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, decimals(values_mm, LEAF_PLACES)
    return item
