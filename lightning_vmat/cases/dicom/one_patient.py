"""Checks that the objects of a plan belong to one patient and refer to each other; messages do not identify him."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.files import DicomFile, shown_word
from lightning_vmat.cases.dicom.rtplan import RtPlan

CHECK_DIGITS = 4


def check_patient_ids(files: Sequence[DicomFile], reference: DicomFile) -> None:
    """Raise a ValueError if a file has another Patient ID than the structure set."""
    for file in files:
        if file.patient_id and reference.patient_id and file.patient_id != reference.patient_id:
            raise ValueError(
                f"{file.path}: {file.modality} of another patient than {reference.path.name}, expected one"
            )


def check_series(files: Sequence[DicomFile], chosen: DicomFile) -> None:
    """Raise a ValueError if slices of a CT disagree in attributes that are common to all.

    Args:
        files: files of the patient.
        chosen: a slice of the CT.
    """
    slices = [file for file in files if file.modality == "CT" and file.series_uid == chosen.series_uid]
    slices = [file for file in slices if not file.is_localizer]
    first = slices[0]
    for one in slices:
        if one.rescale != first.rescale:
            said, expected = (", ".join(file.rescale) or "no rescaling" for file in (one, first))
            raise ValueError(f"{one.path}: CT with {said}, expected {expected} as in {first.path.name}")
        if one.frame_of_reference_uid != first.frame_of_reference_uid:
            raise ValueError(f"{one.path}: other frame of reference than {first.path.name}, expected one CT")
        if one.patient_position != first.patient_position:
            positions = f"{shown_word(one.patient_position)}, but {shown_word(first.patient_position)}"
            raise ValueError(f"{one.path}: patient position {positions} in {first.path.name}, expected one CT")


def check_structures(path: Path, series_uids: Sequence[str], frame_uids: Sequence[str], ct: DicomFile) -> None:
    """Raise a ValueError if a structure set was drawn on another CT.

    Args:
        path: path of the structure set.
        series_uids: series that it names, possibly none.
        frame_uids: frames of reference of its coordinates, possibly none.
        ct: a slice of the CT.
    """
    if ct.frame_of_reference_uid not in frame_uids:
        check_file_frame(path, next(iter(frame_uids), ""), ct.frame_of_reference_uid)
    if series_uids and ct.series_uid not in series_uids and not (frame_uids and ct.frame_of_reference_uid):
        raise ValueError(f"{path}: drawn on another CT series than {ct.path.name}, without a frame of reference")


def check_file_frame(path: Path, frame_uid: str, ct_frame_uid: str) -> None:
    """Raise a ValueError where a file names another frame of reference than the CT."""
    if frame_uid and ct_frame_uid and frame_uid != ct_frame_uid:
        raise ValueError(f"{path}: other frame of reference than the CT, expected the same")


def check_plan(plan: RtPlan, link: PatientLink) -> None:
    """Raise a ValueError if a plan is of another patient, or made on another structure set or CT."""
    check_file_frame(plan.path, plan.frame_of_reference_uid, link.frame_of_reference_uid)
    key = patient_check(plan.patient_id, link.study_uid)
    if key and link.patient_check and key != link.patient_check:
        raise ValueError(f"{plan.path}: RTPLAN of another patient than the CT, expected the same")
    if plan.structure_set_uid and link.structure_set_uid and plan.structure_set_uid != link.structure_set_uid:
        raise ValueError(f"{plan.path}: refers to another structure set than the patient's, expected the same")


def patient_check(patient_id: str, study_uid: str) -> str:
    """Four digits that differ between most Patient IDs but do not reveal one; empty without an ID.

    One in 65,536 other patients has the same digits, so that hundreds of possible IDs share them.
    """
    if not patient_id:
        return ""
    return hashlib.sha256(f"{study_uid} {patient_id}".encode()).hexdigest()[:CHECK_DIGITS]
