"""ROIs of an RTSTRUCT with their contours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lightning_vmat.data.dicom.contours import Points
from lightning_vmat.data.dicom.files import clear_errors, read_dataset
from lightning_vmat.data.dicom.roi_counts import check_counts

AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")  # points and open lines have no inside
MIN_CORNERS = 3


@dataclass(frozen=True)
class Roi:
    """A region of interest.

    Args:
        name: as its author called it.
        interpreted_type: `EXTERNAL`, `PTV`, `ORGAN`, `SUPPORT`, ... or empty.
        contours: closed contours, corners (x, y, z) in LPS mm.
    """

    name: str
    interpreted_type: str
    contours: list[Points]


@dataclass(frozen=True)
class StructureSet:
    """An RTSTRUCT.

    Args:
        uid: SOP Instance UID.
        rois: those that have an area.
        series_uid: CT series that it names; empty if none.
        frame_of_reference_uid: of its coordinates; empty if it does not say.
    """

    uid: str
    rois: list[Roi]
    series_uid: str
    frame_of_reference_uid: str


def read_structure_set(path: Path) -> StructureSet:
    """Read an RTSTRUCT.

    Raises:
        ValueError: a broken file, or one without any area.
    """
    data = read_dataset(path)
    with clear_errors(path):
        check_counts(data, path)
        contours = {int(item.ReferencedROINumber): _contours(item, path) for item in data.get("ROIContourSequence", [])}
        types = {
            int(item.ReferencedROINumber): str(item.get("RTROIInterpretedType") or "").upper()
            for item in data.get("RTROIObservationsSequence", [])
        }
        rois = [
            Roi(str(item.get("ROIName", "")), types.get(int(item.ROINumber), ""), contours[int(item.ROINumber)])
            for item in data.get("StructureSetROISequence", [])
            if contours.get(int(item.ROINumber))
        ]
        if not rois:
            raise ValueError(f"{path}: no structure with a closed contour, expected an RTSTRUCT")
        series_uid, frame_uid = _references(data)
        return StructureSet(str(data.SOPInstanceUID), rois, series_uid, frame_uid)


def _contours(item: Dataset, path: Path) -> list[Points]:
    areas = []
    for contour in item.get("ContourSequence") or []:
        if str(contour.get("ContourGeometricType", "")) not in AREAS:
            continue
        values = np.array([float(value) for value in contour.get("ContourData") or []])
        if len(values) % 3 != 0:
            raise ValueError(f"{path}: contour of {len(values)} coordinates, expected three for each point")
        if len(values) >= 3 * MIN_CORNERS:
            areas.append(values.reshape(-1, 3))
    return areas


def _references(data: Dataset) -> tuple[str, str]:
    """Series and frame of reference that a structure set was drawn on."""
    for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
        frame_uid = str(frame.get("FrameOfReferenceUID", ""))
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                return str(series.get("SeriesInstanceUID", "")), frame_uid
        return "", frame_uid
    for roi in data.get("StructureSetROISequence") or []:
        return "", str(roi.get("ReferencedFrameOfReferenceUID", ""))
    return "", ""
