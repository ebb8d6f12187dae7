"""Reads the ROIs of an RTSTRUCT: contours, frame of reference and assigned densities."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.assigned_density import assigned_density
from lightning_vmat.cases.dicom.contour_groups import Points
from lightning_vmat.cases.dicom.files import clear_errors, read_dataset, shown
from lightning_vmat.cases.dicom.roi_counts import check_counts

EXCLUSIVE = "CLOSEDPLANAR_XOR"
INTERPOLATED = "INTERPOLATED_PLANAR"  # not in the standard: closed contours interpolated between drawn ones
AREAS = ("CLOSED_PLANAR", EXCLUSIVE, INTERPOLATED)  # points and open lines have no inside
MIN_CORNERS = 3


@dataclass(frozen=True)
class Roi:
    """A region of interest.

    Args:
        name: ROI Name.
        interpreted_type: `EXTERNAL`, `PTV`, `ORGAN`, `SUPPORT`, ... or empty.
        contours: closed contours, corners (x, y, z) in LPS mm.
        exclusive: combine contours of a plane by exclusive or, also where they cross.
        frame_of_reference_uid: Frame of Reference UID of the coordinates; empty if not stated.
        density: assigned relative electron density; None if the CT numbers apply.
    """

    name: str
    interpreted_type: str
    contours: list[Points]
    exclusive: bool = False
    frame_of_reference_uid: str = ""
    density: float | None = None

    @property
    def shown(self) -> str:
        """The name, shortened for messages."""
        return repr(shown(self.name, 64))


@dataclass(frozen=True)
class StructureSet:
    """An RTSTRUCT.

    Args:
        uid: SOP Instance UID.
        rois: ROIs with an area.
        empty: names of the other ROIs.
        series_uids: referenced image series, in the order of the file.
        frame_uids: frames of reference of the file and its ROIs, in the order of the file.
    """

    uid: str
    rois: list[Roi]
    empty: list[str]
    series_uids: list[str]
    frame_uids: list[str]


def read_structure_set(path: Path) -> StructureSet:
    """Read an RTSTRUCT.

    Raises:
        ValueError: a broken file, one without any area, or ROI properties that the dose cannot take into account.
    """
    data = read_dataset(path)
    with clear_errors(path):
        check_counts(data, path)
        items: dict[int, list[Dataset]] = defaultdict(list)
        observations: dict[int, list[Dataset]] = defaultdict(list)
        for item in data.get("ROIContourSequence") or []:
            items[int(item.ReferencedROINumber)].extend(item.get("ContourSequence") or [])
        for item in data.get("RTROIObservationsSequence") or []:
            observations[int(item.ReferencedROINumber)].append(item)
        rois, empty = [], []
        for item in data.get("StructureSetROISequence") or []:
            number = int(item.ROINumber)
            roi = _roi(item, items[number], observations[number], path)
            if roi is None:
                empty.append(str(item.get("ROIName", "")))
            else:
                rois.append(roi)
        if not rois:
            raise ValueError(f"{path}: no structure with a closed contour, expected an RTSTRUCT")
        series_uids, frame_uids = _references(data)
        frame_uids += [roi.frame_of_reference_uid for roi in rois if roi.frame_of_reference_uid]
        return StructureSet(str(data.SOPInstanceUID), rois, empty, series_uids, list(dict.fromkeys(frame_uids)))


def _roi(item: Dataset, contours: list[Dataset], observations: list[Dataset], path: Path) -> Roi | None:
    """Read a ROI; None without an area."""
    name = str(item.get("ROIName", ""))
    where = f"{path}: ROI {shown(name, 64)!r}"
    areas = _areas(contours, where)
    if not areas:
        return None
    kinds = [str(one.get("RTROIInterpretedType") or "").upper().strip() for one in observations]
    return Roi(
        name=name,
        interpreted_type=next((kind for kind in kinds if kind), ""),
        contours=areas,
        exclusive=any(contour.get("ContourGeometricType") == EXCLUSIVE for contour in contours),
        frame_of_reference_uid=str(item.get("ReferencedFrameOfReferenceUID") or ""),
        density=assigned_density(observations, where),
    )


def _areas(contours: list[Dataset], where: str) -> list[Points]:
    areas, hollow = [], 0
    for contour in contours:
        kind = str(contour.get("ContourGeometricType", ""))
        if kind not in AREAS:
            continue
        values = np.array([float(value) for value in contour.get("ContourData") or []])
        if len(values) % 3 != 0:
            raise ValueError(f"{where}: contour of {len(values)} coordinates, expected three for each point")
        if len(values) >= 3 * MIN_CORNERS:
            areas.append(values.reshape(-1, 3))
        elif kind == INTERPOLATED:
            hollow += 1
    if areas and hollow:
        raise ValueError(f"{where}: {hollow} contours of type {INTERPOLATED} without coordinates, expected corners")
    return areas


def _references(data: Dataset) -> tuple[list[str], list[str]]:
    """Referenced series and frames of reference of a structure set."""
    series_uids, frame_uids = [], []
    for frame in data.get("ReferencedFrameOfReferenceSequence") or []:
        frame_uids.append(str(frame.get("FrameOfReferenceUID") or ""))
        for study in frame.get("RTReferencedStudySequence") or []:
            for series in study.get("RTReferencedSeriesSequence") or []:
                series_uids.append(str(series.get("SeriesInstanceUID") or ""))
    return [uid for uid in series_uids if uid], [uid for uid in frame_uids if uid]
