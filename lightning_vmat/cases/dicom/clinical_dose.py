"""The clinical dose of a patient, from the RTDOSE files of the folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.files import DicomFile, clear_errors, read_dataset, shown_word
from lightning_vmat.cases.dicom.fraction_group import treated_numbers
from lightning_vmat.cases.dicom.one_patient import check_file_frame
from lightning_vmat.cases.dicom.rtdose import DoseHeader, read_dose_header, read_rtdose
from lightning_vmat.plan.volume import VolumeGrid

MOVE = "move it away to read the patient without"
HEADER_TAGS = ["FractionGroupSequence"]


def clinical_dose(
    files: Sequence[DicomFile],
    grid: VolumeGrid,
    link: PatientLink,
    reached: Mapping[str, Bool[Tensor, "z y x"]],
) -> Float[Tensor, "z y x"] | None:
    """The dose of the plan, or the sum of the doses of its beams; None without RTDOSE files.

    Args:
        files: files of the patient's folder.
        grid: grid of the case.
        link: DICOM objects of the patient.
        reached: masks of body and targets; a dose that is 0 everywhere in one of them is refused.

    Raises:
        ValueError: a dose of another plan, CT or structure set, of another type, of some beams only, or outside
            the patient; two possible doses.
    """
    doses = {file.uid: file for file in files if file.modality == "RTDOSE"}
    if not doses:
        return None
    plans = {file.uid: file.path for file in files if file.modality == "RTPLAN"}
    headers = [read_dose_header(file.path) for file in doses.values()]
    chosen = _chosen(_of_plans(headers, plans), plans)
    frames = {file.path: file.frame_of_reference_uid for file in doses.values()}
    total = torch.zeros(grid.shape)
    for header in chosen:
        check_file_frame(header.path, frames[header.path], link.frame_of_reference_uid)
        if header.structure_set_uid and header.structure_set_uid != link.structure_set_uid:
            raise ValueError(f"{header.path}: refers to another structure set than the patient's, expected the same")
        total += read_rtdose(header.path, grid)
    for name, mask in reached.items():
        if not float(total[mask].max()) > 0:
            raise ValueError(f"{chosen[0].path}: no dose in {name}, expected a dose of this patient; {MOVE}")
    return total


def _of_plans(headers: list[DoseHeader], plans: Mapping[str, Path]) -> list[DoseHeader]:
    """Doses that refer to one of the plans or to no plan; all doses if there are no plans."""
    own = [header for header in headers if not plans or header.plan_uid in plans or not header.plan_uid]
    if not own:
        names = ", ".join(path.name for path in plans.values())
        raise ValueError(f"{headers[0].path}: dose of another plan, expected one of {names}; {MOVE}")
    return own


def _chosen(headers: list[DoseHeader], plans: Mapping[str, Path]) -> list[DoseHeader]:
    """The dose of a plan, or the doses of its beams."""
    whole = [header for header in headers if header.summation == "PLAN"]
    if len(whole) > 1:
        names = " and ".join(str(header.path) for header in whole)
        raise ValueError(f"{names}: {len(whole)} doses of a plan, expected one; move the others away")
    if whole:
        return whole
    other = next((header for header in headers if header.summation != "BEAM"), None)
    if other is not None:
        summed = shown_word(other.summation)
        raise ValueError(f"{other.path}: dose summed over {summed}, expected PLAN or BEAM; {MOVE}")
    _check_beams(headers, plans)
    return headers


def _check_beams(headers: list[DoseHeader], plans: Mapping[str, Path]) -> None:
    """Raise unless each beam of one plan has one dose."""
    first = headers[0]
    if {header.plan_uid for header in headers} != {first.plan_uid} or first.plan_uid not in plans:
        raise ValueError(f"{first.path}: dose of a beam, expected the RTPLAN that all such doses refer to; {MOVE}")
    path = plans[first.plan_uid]
    data = read_dataset(path, specific_tags=HEADER_TAGS)
    with clear_errors(path):
        expected = treated_numbers(data, path)
    found = sorted(number for header in headers for number in header.beams)
    if found != expected or not all(len(header.beams) == 1 for header in headers):
        raise ValueError(
            f"{first.path.parent}: doses of the beams {found}, expected one for each of {expected} of {path.name}"
        )
