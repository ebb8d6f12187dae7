"""A small patient as DICOM: a water cylinder with a target, a plan of short arcs and its dose, for tests of reading.

Every dataset passes a last `change`, so that a test says only what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from clinical_plan import EDGES_MM
from dicom_series import FRAME_UID, Points, circle, save, sphere, write_slice, write_structures
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage, RTPlanStorage, RTStructureSetStorage

HEIGHTS_MM = [-30.0 + 6.0 * k for k in range(11)]
RADIUS_MM, TARGET_MM = 70.0, 20.0
PLAN_UID = "1.2.3.88"
LEAF_MM = 22.0  # half of the opening at the first control point
SAME_DOSE_GY = 2.0  # of the first frame of the dose; each of the next has that much more
Change = Callable[[Dataset], object]


def unchanged(data: Dataset) -> None:
    """A last change that is none."""


def water(points: Points) -> Points:
    return np.where(np.hypot(points[..., 0], points[..., 1]) < RADIUS_MM, 0.0, -1000.0)


def write_small_patient(
    folder: Path, *, position: str = "HFS", change_ct: Change = unchanged, change_structures: Change = unchanged
) -> Path:
    """CT and structure set of a pelvis."""
    for k, height in enumerate(HEIGHTS_MM):
        path = folder / f"ct_{k:02d}.dcm"
        write_slice(path, water, (-78.0, -78.0, height), shape=(40, 40), pixel_mm=(4.0, 4.0), patient_position=position)
        rewrite(path, change_ct)
    rois = {
        "Body": [circle(RADIUS_MM, (0, 0, height), 60) for height in HEIGHTS_MM],
        "PTV": sphere(TARGET_MM, (0, 0, 0), HEIGHTS_MM),
        "Bladder": sphere(15.0, (0, -40, 0), HEIGHTS_MM),
        "Rectum": sphere(14.0, (0, 40, 0), HEIGHTS_MM),
        "Femur_L": sphere(12.0, (48, 0, 0), HEIGHTS_MM),
        "Femur_R": sphere(12.0, (-48, 0, 0), HEIGHTS_MM),
    }
    write_structures(folder / "rs.dcm", rois, types={"Body": "EXTERNAL", "PTV": "PTV"})
    rewrite(folder / "rs.dcm", count_points)
    rewrite(folder / "rs.dcm", change_structures)
    return folder


def count_points(data: Dataset) -> None:
    """Each contour says how many points it has."""
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            contour.NumberOfContourPoints = len(contour.ContourData) // 3


def rewrite(path: Path, change: Change) -> Path:
    """Change a file in place."""
    if change is not unchanged:
        data = dcmread(path)
        change(data)
        data.save_as(path)
    return path


def arc(
    number: int = 1, gantry_deg: Sequence[float] = (181, 179), senses: str | Sequence[str] = "CW", wider_mm: float = 0.0
) -> Dataset:
    """A photon arc: equal monitor units from each control point to the next, leaves that open evenly.

    Args:
        number: Beam Number.
        gantry_deg: at each control point.
        senses: Gantry Rotation Direction, of each control point or of all.
        wider_mm: how much wider each side is open at the last control point than at the first.
    """
    beam, mode, count = Dataset(), Dataset(), len(gantry_deg)
    beam.BeamNumber, beam.BeamName, beam.BeamType, beam.RadiationType = number, f"ARC {number}", "DYNAMIC", "PHOTON"
    beam.TreatmentDeliveryType, beam.TreatmentMachineName = "TREATMENT", "LINAC"
    beam.PrimaryDosimeterUnit, beam.SourceAxisDistance, mode.FluenceMode = "MU", 1000, "STANDARD"
    beam.PrimaryFluenceModeSequence = [mode]
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.ReferencedPatientSetupNumber = 1
    beam.FinalCumulativeMetersetWeight, beam.NumberOfControlPoints = 1, count
    beam.BeamLimitingDeviceSequence = [_device("ASYMX", 1), _device("ASYMY", 1), _device("MLCX", len(EDGES_MM) - 1)]
    beam.BeamLimitingDeviceSequence[-1].LeafPositionBoundaries = list(EDGES_MM)
    words = [senses] * (count - 1) + ["NONE"] if isinstance(senses, str) else list(senses)
    beam.ControlPointSequence = []
    for index, angle in enumerate(gantry_deg):
        point, share = Dataset(), index / (count - 1)
        point.ControlPointIndex, point.CumulativeMetersetWeight = index, f"{share:.8f}"
        point.GantryAngle, point.GantryRotationDirection = angle % 360, words[index]
        half = LEAF_MM + wider_mm * share
        pairs = len(EDGES_MM) - 1
        point.BeamLimitingDevicePositionSequence = [positions("MLCX", [-half] * pairs + [half] * pairs)]
        beam.ControlPointSequence.append(point)
    first = beam.ControlPointSequence[0]
    first.NominalBeamEnergy, first.BeamLimitingDeviceAngle, first.PatientSupportAngle = 6, 10, 0
    first.IsocenterPosition = [0, 0, 0]
    first.BeamLimitingDevicePositionSequence = [
        positions("ASYMX", [-30, 30]),
        positions("ASYMY", [-20, 20]),
        *first.BeamLimitingDevicePositionSequence,
    ]
    return beam


def positions(kind: str, values_mm: Sequence[float]) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.LeafJawPositions = kind, [round(float(value), 4) for value in values_mm]
    return item


def _device(kind: str, pairs: int) -> Dataset:
    item = Dataset()
    item.RTBeamLimitingDeviceType, item.NumberOfLeafJawPairs = kind, pairs
    return item


def write_plan(
    folder: Path,
    beams: Sequence[Dataset] | None = None,
    *,
    mu: Sequence[float | None] | None = None,
    change: Change = unchanged,
    name: str = "rp.dcm",
) -> Path:
    """An RTPLAN of the small patient.

    Args:
        folder: of the patient; the plan refers to its structure set if it has one.
        beams: its beams; one arc of 13 control points when None.
        mu: of each beam; None leaves the Beam Meterset out.
        change: a last change.
        name: of the file.
    """
    data, group, setup, prescription = Dataset(), Dataset(), Dataset(), Dataset()
    beams = [arc(gantry_deg=range(181, 542, 30))] if beams is None else beams
    data.SOPClassUID, data.Modality, data.FrameOfReferenceUID = RTPlanStorage, "RTPLAN", FRAME_UID
    data.RTPlanLabel, data.RTPlanGeometry, data.ManufacturerModelName = "P", "PATIENT", "Some system"
    group.FractionGroupNumber, group.NumberOfFractionsPlanned, group.NumberOfBeams = 1, 20, len(beams)
    group.NumberOfBrachyApplicationSetups, group.ReferencedBeamSequence = 0, []
    for beam, units in zip(beams, mu or [500.0] * len(beams), strict=True):
        item = Dataset()
        item.ReferencedBeamNumber = beam.BeamNumber
        if units is not None:
            item.BeamMeterset = units
        group.ReferencedBeamSequence.append(item)
    setup.PatientSetupNumber, setup.PatientPosition = 1, "HFS"
    prescription.DoseReferenceNumber, prescription.TargetPrescriptionDose = 1, 60
    data.FractionGroupSequence, data.PatientSetupSequence = [group], [setup]
    data.DoseReferenceSequence, data.BeamSequence = [prescription], list(beams)
    if (folder / "rs.dcm").is_file():
        uid = dcmread(folder / "rs.dcm", specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        data.ReferencedStructureSetSequence = [reference(RTStructureSetStorage, uid)]
    save(data, folder / name)

    def finish(data: Dataset) -> None:
        data.SOPInstanceUID = PLAN_UID
        change(data)

    return rewrite(folder / name, finish)


def reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def write_dose(
    folder: Path,
    *,
    change: Change = unchanged,
    name: str = "rd.dcm",
    plan_uid: str = PLAN_UID,
    beam: int | None = None,
    to_the_feet: bool = False,
    coordinates: bool = False,
    scale: float = 1.0,
) -> Path:
    """A dose that grows by `SAME_DOSE_GY` from frame to frame towards the head.

    Args:
        folder: of the patient.
        change: a last change.
        name: of the file.
        plan_uid: of the plan that it refers to.
        beam: number of the beam of which it is the dose; the whole plan's when None.
        to_the_feet: frames in an order and orientation whose normal points to the feet.
        coordinates: frame offsets as z coordinates.
        scale: a factor on the dose.
    """
    data, group, item = Dataset(), Dataset(), Dataset()
    shape, step_mm, low_mm = (12, 17, 17), 6.0, -33.0
    data.SOPClassUID, data.Modality, data.FrameOfReferenceUID = RTDoseStorage, "RTDOSE", FRAME_UID
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN" if beam is None else "BEAM"
    plan = reference(RTPlanStorage, plan_uid)
    if beam is not None:
        item.ReferencedBeamNumber, group.ReferencedFractionGroupNumber = beam, 1
        group.ReferencedBeamSequence, plan.ReferencedFractionGroupSequence = [item], [group]
    data.ReferencedRTPlanSequence, data.DoseGridScaling = [plan], f"{0.01 * scale:.6g}"
    heights = low_mm + step_mm * np.arange(shape[0])
    stored = np.broadcast_to(100 * SAME_DOSE_GY * np.arange(1, shape[0] + 1)[:, None, None], shape)
    data.ImagePositionPatient, data.ImageOrientationPatient = [-80, -80, low_mm], [1, 0, 0, 0, 1, 0]
    if to_the_feet:
        heights, stored = heights[::-1], stored[::-1]
        data.ImagePositionPatient, data.ImageOrientationPatient = [80, -80, heights[0]], [-1, 0, 0, 0, 1, 0]
    offsets = heights if coordinates else np.abs(heights - heights[0])
    data.GridFrameOffsetVector, data.FrameIncrementPointer = offsets.tolist(), 0x3004000C
    data.NumberOfFrames, data.Rows, data.Columns = shape
    data.PixelSpacing, data.SamplesPerPixel, data.PhotometricInterpretation = [10, 10], 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelData = np.ascontiguousarray(stored).astype("<u2").tobytes()
    data["PixelData"].VR = "OW"
    return rewrite(save(data, folder / name), change)


def dose_at(height_mm: float) -> float:
    """What `write_dose` writes at a height."""
    return SAME_DOSE_GY * ((height_mm + 33.0) / 6.0 + 1.0)
