"""An RTPLAN of an arc as a planning system writes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import RTPlanStorage

from lightning_vmat.plan.machine import load_machine

EDGES_MM = load_machine("truebeam_millennium120").leaf_edges_mm
POINTS, STEP_DEG, FIRST_DEG = 178, 2.0, 182.0
JAWS_MM = ([-38.0, 37.0], [-40.0, 40.0])
TOTAL_MU, FINAL_WEIGHT = 640.0, 0.98


def half_width_mm(point: int) -> np.ndarray:
    """How far the leaves of each pair are from the axis: a lens that breathes with the gantry; closed beside it."""
    middles = (np.array(EDGES_MM[1:]) + EDGES_MM[:-1]) / 2
    lens = 30.0 * np.sqrt(np.clip(1 - (middles / 38.0) ** 2, 0, None)) * (1 + 0.1 * np.sin(point / 20))
    return np.asarray(lens)


def weights(beam_on_at: int) -> np.ndarray:
    """Cumulative meterset weights that stay at 0 up to a control point."""
    shares = 1 + 0.5 * np.sin(np.arange(POINTS - 1) / 9)
    shares[:beam_on_at] = 0
    return np.concatenate(([0.0], shares.cumsum() / shares.sum() * FINAL_WEIGHT))


def write_clinical_plan(
    path: Path,
    source: Path,
    isocentre_mm: Sequence[float],
    *,
    beam_on_at: int = 0,
    change: Callable[[Dataset], object] = lambda data: None,
) -> Path:
    """An arc of 178 control points, two degrees apart.

    Args:
        path: of the file.
        source: an object of the same patient.
        isocentre_mm: patient LPS.
        beam_on_at: control point at which the first monitor unit is given.
        change: a last change.
    """
    patient, data = pydicom.dcmread(source), Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = RTPlanStorage, "1.2.3.77", "RTPLAN"
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(data, keyword, patient[keyword].value)
    data.Manufacturer, data.ManufacturerModelName, data.RTPlanLabel = "Some vendor", "Some system", "VMAT1"
    group, referenced, setup, prescription = Dataset(), Dataset(), Dataset(), Dataset()
    referenced.ReferencedBeamNumber, referenced.BeamMeterset = 3, TOTAL_MU
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, 20
    group.ReferencedBeamSequence = [referenced]
    setup.PatientSetupNumber, setup.PatientPosition = 1, "HFS"
    prescription.DoseReferenceNumber, prescription.TargetPrescriptionDose = 1, 60
    data.FractionGroupSequence, data.PatientSetupSequence = [group], [setup]
    data.DoseReferenceSequence, data.BeamSequence = [prescription], [setup_beam(), _arc(isocentre_mm, beam_on_at)]
    change(data)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def setup_beam() -> Dataset:
    """A field to position the patient with, which treats nothing."""
    beam = Dataset()
    beam.BeamNumber, beam.BeamName, beam.TreatmentDeliveryType = 1, "CBCT", "SETUP"
    return beam


def _arc(isocentre_mm: Sequence[float], beam_on_at: int) -> Dataset:
    beam, mode = Dataset(), Dataset()
    beam.BeamNumber, beam.BeamName, beam.BeamType, beam.RadiationType = 3, "ARC 1", "DYNAMIC", "PHOTON"
    beam.TreatmentDeliveryType, beam.TreatmentMachineName = "TREATMENT", "TB4"
    mode.FluenceMode = "STANDARD"
    beam.PrimaryFluenceModeSequence = [mode]
    beam.FinalCumulativeMetersetWeight, beam.NumberOfControlPoints = FINAL_WEIGHT, POINTS
    beam.BeamLimitingDeviceSequence = []
    for kind, pairs in (("ASYMX", 1), ("ASYMY", 1), ("MLCX", 60)):
        device = Dataset()
        device.RTBeamLimitingDeviceType, device.NumberOfLeafJawPairs = kind, pairs
        beam.BeamLimitingDeviceSequence.append(device)
    beam.BeamLimitingDeviceSequence[-1].LeafPositionBoundaries = list(EDGES_MM)
    given = weights(beam_on_at)
    beam.ControlPointSequence = [_point(index, float(given[index])) for index in range(POINTS)]
    first = beam.ControlPointSequence[0]
    first.NominalBeamEnergy, first.DoseRateSet, first.GantryRotationDirection = 6, 600, "CW"
    first.BeamLimitingDeviceAngle, first.PatientSupportAngle = 30, 0
    first.IsocenterPosition = list(isocentre_mm)
    jaws = [_positions(kind, place) for kind, place in zip(("ASYMX", "ASYMY"), JAWS_MM, strict=True)]
    first.BeamLimitingDevicePositionSequence = [*jaws, *first.BeamLimitingDevicePositionSequence]
    return beam


def _point(index: int, weight: float) -> Dataset:
    point, half = Dataset(), half_width_mm(index)
    point.ControlPointIndex, point.CumulativeMetersetWeight = index, f"{weight:.10f}"
    point.GantryAngle = (FIRST_DEG + STEP_DEG * index) % 360
    point.BeamLimitingDevicePositionSequence = [_positions("MLCX", [*(-half - 0.25).round(2), *(half + 0.25).round(2)])]
    return point


def _positions(kind: str, values_mm: Sequence[float]) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, [float(value) for value in values_mm]
    return item
