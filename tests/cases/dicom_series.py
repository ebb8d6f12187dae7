"""Small CT series and structure sets as some scanner or planning system might write them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

Points = NDArray[np.float64]
Field = Callable[[Points], Points]
FRAME_UID, SERIES_UID, STUDY_UID = "1.2.3.1", "1.2.3.2", "1.2.3.3"


def save(data: Dataset, path: Path) -> Path:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.PatientName, data.PatientID = STUDY_UID, "Doe^Jane", "4711"
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_slice(
    path: Path,
    field: Field,
    position_mm: Sequence[float],
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    shape: tuple[int, int] = (30, 40),
    pixel_mm: tuple[float, float] = (2.0, 1.5),
    slope: float = 1.0,
    intercept: float = -1024.0,
    patient_position: str = "HFS",
    series_uid: str = SERIES_UID,
    signed: bool = False,
    image_type: Sequence[str] = ("ORIGINAL", "PRIMARY", "AXIAL"),
) -> Path:
    """A slice whose pixels are sampled where DICOM says they are (PS3.3, C.7.6.2.1.1)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    along_row, along_column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    points = (
        np.array(position_mm)
        + columns[..., None] * pixel_mm[1] * along_row
        + rows[..., None] * pixel_mm[0] * along_column
    )
    data = Dataset()
    data.SOPClassUID, data.Modality = CTImageStorage, "CT"
    data.SeriesInstanceUID, data.FrameOfReferenceUID = series_uid, FRAME_UID
    data.ImageType, data.PatientPosition = list(image_type), patient_position
    data.ImagePositionPatient = [float(value) for value in position_mm]
    data.ImageOrientationPatient, data.PixelSpacing = [float(value) for value in orientation], list(pixel_mm)
    data.Rows, data.Columns, data.SamplesPerPixel = *shape, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(signed)
    data.RescaleSlope, data.RescaleIntercept = slope, intercept
    data.PixelData = np.rint((field(points) - intercept) / slope).astype("<i2" if signed else "<u2").tobytes()
    data["PixelData"].VR = "OW"
    return save(data, path)


def write_series(folder: Path, field: Field, heights_mm: Sequence[float], **options: object) -> list[Path]:
    """Axial slices at some heights, in files whose names do not follow them."""
    order = np.random.default_rng(3).permutation(len(heights_mm))
    return [
        write_slice(folder / f"{name:03d}.dcm", field, (-30.0, -20.0, height), **options)  # type: ignore[arg-type]
        for name, height in zip(order, heights_mm, strict=True)
    ]


def circle(radius_mm: float, centre_mm: Sequence[float], corners: int = 180) -> Points:
    """A contour in the plane of its centre."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    x, y, z = centre_mm
    return np.stack((x + radius_mm * np.cos(angle), y + radius_mm * np.sin(angle), np.full(corners, z)), axis=1)


def sphere(radius_mm: float, centre_mm: Sequence[float], heights_mm: Sequence[float]) -> list[Points]:
    """Circles where slices cut a sphere."""
    x, y, z = centre_mm
    inside = [height for height in heights_mm if abs(height - z) < radius_mm]
    return [circle(float(np.sqrt(radius_mm**2 - (height - z) ** 2)), (x, y, height)) for height in inside]


def cylinder(radius_mm: float, centre_mm: Sequence[float], heights_mm: Sequence[float]) -> list[Points]:
    """The same circle at each height."""
    x, y = centre_mm[:2]
    return [circle(radius_mm, (x, y, height)) for height in heights_mm]


def write_structures(
    path: Path,
    rois: dict[str, list[Points]],
    *,
    types: dict[str, str] | None = None,
    kind: str | Callable[[int], str] = "CLOSED_PLANAR",
    frames: dict[str, str] | None = None,
    frame_order: Sequence[str] = (),
    properties: dict[str, dict[str, float]] | None = None,
) -> Path:
    """A structure set.

    Args:
        path: of the file.
        rois: contours by ROI name.
        types: RT ROI Interpreted Type by name; ORGAN else.
        kind: Contour Geometric Type, of all contours or by their number in the ROI.
        frames: frame of reference by ROI name; the CT's else.
        frame_order: frames of reference that the structure set lists, in this order; the CT's comes with its series.
        properties: ROI Physical Properties by ROI name.
    """
    data = Dataset()
    data.SOPClassUID, data.Modality, data.FrameOfReferenceUID = RTStructureSetStorage, "RTSTRUCT", FRAME_UID
    data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
    if frame_order:
        data.ReferencedFrameOfReferenceSequence = [_frame(uid) for uid in frame_order]
    for number, (name, contours) in enumerate(rois.items(), start=7):
        roi, observation, item = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = (frames or {}).get(name, FRAME_UID)
        observation.ReferencedROINumber = item.ReferencedROINumber = number
        observation.RTROIInterpretedType = (types or {}).get(name, "ORGAN")
        if properties and name in properties:
            observation.ROIPhysicalPropertiesSequence = [_property(*pair) for pair in properties[name].items()]
        item.ContourSequence = []
        for index, points in enumerate(contours):
            contour, its_kind = Dataset(), kind if isinstance(kind, str) else kind(index)
            with warnings.catch_warnings():  # INTERPOLATED_PLANAR is longer than the standard's terms may be
                warnings.simplefilter("ignore")
                contour.ContourGeometricType = its_kind if len(points) > 1 else "POINT"
            contour.ContourData = [f"{value:.5f}" for value in points.ravel()]
            item.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.RTROIObservationsSequence.append(observation)
        data.ROIContourSequence.append(item)
    return save(data, path)


def _frame(uid: str) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = SERIES_UID if uid == FRAME_UID else "1.2.3.44"
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = uid, [study]
    return frame


def _property(kind: str, value: float) -> Dataset:
    item = Dataset()
    item.ROIPhysicalProperty, item.ROIPhysicalPropertyValue = kind, f"{value:g}"
    return item
