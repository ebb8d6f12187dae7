"""Writes the structures of a case as DICOM RTSTRUCT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, RTStructureSetStorage

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.export.dicom_objects import RESEARCH_LABEL, RESEARCH_TEXT, decimals, new_object, reference, save
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.volume import VolumeGrid

COLOURS = ((0, 158, 115), (213, 94, 0), (0, 114, 178), (204, 121, 167), (230, 159, 0), (86, 180, 233), (240, 228, 66))
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # detached study management, retired but still what the attribute asks for


def write_rtstruct(path: Path, case: Case, link: PatientLink, series_uid: str, slice_uids: list[str]) -> None:
    """Write the contours of every structure, slice by slice, half-way between voxel centres inside and outside.

    A hole is a contour within a contour. The SOP Instance UID is the structure set's of the link.

    Args:
        path: path of the DICOM file.
        case: case with the structures.
        link: DICOM objects of the patient.
        series_uid: Series Instance UID of the CT.
        slice_uids: SOP Instance UIDs of its slices, from inferior to superior.
    """
    data = new_object(RTStructureSetStorage, "RTSTRUCT", link)
    data.SOPInstanceUID = link.structure_set_uid
    data.StructureSetLabel, data.StructureSetName = RESEARCH_LABEL, RESEARCH_TEXT
    data.StructureSetDate, data.StructureSetTime = data.InstanceCreationDate, data.InstanceCreationTime
    data.ApprovalStatus = "UNAPPROVED"
    data.ReferencedFrameOfReferenceSequence = Sequence([_frame_of_reference(link, series_uid, slice_uids)])
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(), Sequence()
    data.RTROIObservationsSequence = Sequence()
    for number, (name, mask) in enumerate(case.structures.items(), start=1):
        roi, observation, contours = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, link.frame_of_reference_uid
        roi.ROIName, roi.ROIGenerationAlgorithm = name, "AUTOMATIC"
        observation.ObservationNumber, observation.ReferencedROINumber = number, number
        observation.RTROIInterpretedType, observation.ROIInterpreter = _interpreted_type(case, name), ""
        contours.ReferencedROINumber, contours.ROIDisplayColor = number, list(COLOURS[number % len(COLOURS)])
        contours.ContourSequence = Sequence(_contours(mask.numpy(), case.grid, slice_uids))
        data.StructureSetROISequence.append(roi)
        data.RTROIObservationsSequence.append(observation)
        data.ROIContourSequence.append(contours)
    save(data, path)


def _frame_of_reference(link: PatientLink, series_uid: str, slice_uids: list[str]) -> Dataset:
    series, study, frame = Dataset(), reference(STUDY_CLASS, link.study_uid), Dataset()
    series.SeriesInstanceUID = series_uid
    series.ContourImageSequence = Sequence(reference(CTImageStorage, uid) for uid in slice_uids)
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID = link.frame_of_reference_uid
    frame.RTReferencedStudySequence = Sequence([study])
    return frame


def _interpreted_type(case: Case, name: str) -> str:
    if name == BODY:
        return "EXTERNAL"
    if name in case.prescription_gy:
        return "PTV"
    return name if name in ("CTV", "GTV") else "ORGAN"


def _contours(mask: NDArray[np.bool_], grid: VolumeGrid, slice_uids: list[str]) -> list[Dataset]:
    items = []
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        framed = np.pad(mask[index].astype(np.float64), 1)
        for line in contour_generator(z=framed).lines(0.5):
            points = np.empty((len(line) - 1, 3))
            points[:, :2] = (np.asarray(line)[:-1] - 1) * grid.spacing_mm[:2] + grid.origin_mm[:2]
            points[:, 2] = grid.origin_mm[2] + index * grid.spacing_mm[2]
            item = Dataset()
            item.ContourImageSequence = Sequence([reference(CTImageStorage, slice_uids[index])])
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = decimals(points.ravel().tolist(), 4)
            items.append(item)
    return items
