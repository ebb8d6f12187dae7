"""Finds the folders of patients, and names the patients."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from lightning_vmat.cases.dicom.files import (
    DicomFile,
    clear_errors,
    find_files,
    looks_like_dicom,
    only_one,
    read_dataset,
)

NAME_LETTERS = r"[^\w-]+"
NEEDED = {"CT", "RTSTRUCT"}


def patient_folders(root: Path) -> list[Path]:
    """Subfolders with DICOM files if one of them contains a CT and a structure set, else the folder itself.

    Incomplete or broken subfolders are included; reading them raises the error.

    Raises:
        ValueError: no such folder, no patient in it, or DICOM files beside the folders of patients.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder, expected DICOM files")
    found = {folder: _modalities(folder) for folder in sorted(root.iterdir()) if folder.is_dir()}
    if any(modalities is not None and modalities >= NEEDED for modalities in found.values()):
        loose = [path for path in sorted(root.iterdir()) if looks_like_dicom(path) and _modalities(path)]
        if loose:
            raise ValueError(f"{loose[0]}: lies beside folders of patients, expected in one of them")
        return [folder for folder, modalities in found.items() if modalities is None or modalities]
    files = find_files(root)
    if not {file.modality for file in files} >= NEEDED:
        raise ValueError(f"{root}: {len(files)} files of CT, RTSTRUCT, RTPLAN or RTDOSE, expected a CT and an RTSTRUCT")
    return [root]


def _modalities(place: Path) -> set[str] | None:
    """Modalities in a folder or file; None if a file cannot be read."""
    try:
        return {file.modality for file in find_files(place)}
    except ValueError:
        return None


def patient_name(folder: Path, show_identifiers: bool = False) -> str:
    """A name for the case: `patient_` with digits that do not identify the patient, or the Patient ID.

    Raises:
        ValueError: no structure set in the folder.
    """
    path = structure_file_of(find_files(folder), folder).path
    data = read_dataset(path, specific_tags=["PatientID", "StudyInstanceUID", "SOPInstanceUID"])
    with clear_errors(path):
        patient_id = re.sub(NAME_LETTERS, "_", str(data.get("PatientID") or "")).strip("_")
        if show_identifiers and patient_id:
            return patient_id
        return _hidden_name(f"{data.get('PatientID')} {data.get('StudyInstanceUID')} {data.get('SOPInstanceUID')}")


def named_folders(root: Path, show_identifiers: bool = False) -> tuple[dict[str, Path], dict[str, str]]:
    """Folders of the patients by name, and errors of the unreadable ones by name.

    Raises:
        ValueError: no readable folder; see also `patient_folders`.
    """
    folders: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for folder in patient_folders(root):
        try:
            name = patient_name(folder, show_identifiers)
            if name in folders:
                raise ValueError(f"{folder}: the same patient as {folders[name]}, expected each patient once")
            folders[name] = folder
        except ValueError as error:
            refused[_hidden_name(str(folder.relative_to(root)))] = str(error)
    if not folders:
        raise ValueError(next(iter(refused.values())))
    return folders, refused


def _hidden_name(key: str) -> str:
    return f"patient_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def structure_file_of(files: list[DicomFile], folder: Path) -> DicomFile:
    """The structure set among a patient's files.

    Raises:
        ValueError: no structure set, or several different ones.
    """
    found = only_one(files, "RTSTRUCT", folder)
    if found is None:
        raise ValueError(f"{folder}: no RTSTRUCT among {len(files)} DICOM files, expected one")
    return found
