"""A patient's DICOM folder as a case."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.data.case_files import check_beams
from lightning_vmat.data.dicom.beams import Beams, default_beams, planned_beams
from lightning_vmat.data.dicom.ct import CtSeries, choose_series, read_ct
from lightning_vmat.data.dicom.files import DicomFile, clear_errors, find_files, naming, only_one, read_dataset
from lightning_vmat.data.dicom.link import PatientLink
from lightning_vmat.data.dicom.roi_names import RoiNames
from lightning_vmat.data.dicom.roi_report import RoiReport
from lightning_vmat.data.dicom.rtdose import read_rtdose, summation_type
from lightning_vmat.data.dicom.rtplan import read_rtplan
from lightning_vmat.data.dicom.rtstruct import StructureSet, read_structure_set
from lightning_vmat.data.dicom.structure_volumes import structure_volumes
from lightning_vmat.data.sizes import get_size
from lightning_vmat.objectives.protocol import Protocol, load_protocol
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import Machine, load_machine
from lightning_vmat.plan.volume import VolumeGrid

MACHINE = "truebeam_millennium120"
NAME_LETTERS = r"[^\w-]+"
KEYWORDS = {
    "study_uid": "StudyInstanceUID",
    "patient_position": "PatientPosition",
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "accession_number": "AccessionNumber",
    "referring_physician": "ReferringPhysicianName",
}


@dataclass(frozen=True)
class DicomPatient:
    """What a DICOM folder holds.

    Args:
        case: ready to plan.
        link: what ties a new plan to the patient.
        rois: what became of the ROIs.
        plan: of the RTPLAN; None if it was not asked for or is not there.
        dose_gy: of the RTDOSE, the whole course; None without one of the whole plan.
    """

    case: Case
    link: PatientLink
    rois: RoiReport
    plan: Plan | None
    dose_gy: Float[Tensor, "z y x"] | None

    @property
    def roi_names(self) -> dict[str, str]:
        """Name of the ROI of each structure that was drawn."""
        return {source.structure: source.roi for source in self.rois.structures if source.roi}

    def __repr__(self) -> str:
        """Without `link`, which holds the patient's identity."""
        dose = "no dose" if self.dose_gy is None else "a dose"
        return f"DicomPatient with {self.plan or 'no plan'} and {dose}\n{self.case!r}"


def patient_folders(root: Path) -> list[Path]:
    """Subfolders that hold a CT and a structure set each, or else the folder itself.

    Raises:
        ValueError: there is no such folder, or no patient in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder, expected DICOM files")
    files = find_files(root)
    whole = []
    for folder in sorted({root / file.path.relative_to(root).parts[0] for file in files}):
        if {"CT", "RTSTRUCT"} <= {file.modality for file in files if folder in file.path.parents}:
            whole.append(folder)
    if not whole and not {"CT", "RTSTRUCT"} <= {file.modality for file in files}:
        raise ValueError(f"{root}: {len(files)} files of CT, RTSTRUCT, RTPLAN or RTDOSE, expected a CT and an RTSTRUCT")
    return whole or [root]


def patient_name(folder: Path, show_identifiers: bool = False) -> str:
    """A name for the case: `patient_` and digits that do not tell who it is, or the Patient ID.

    Raises:
        ValueError: no structure set in the folder.
    """
    path = _structure_file(find_files(folder), folder).path
    data = read_dataset(path, specific_tags=["PatientID", "StudyInstanceUID", "SOPInstanceUID"])
    with clear_errors(path):
        patient_id = re.sub(NAME_LETTERS, "_", str(data.get("PatientID") or "")).strip("_")
        if show_identifiers and patient_id:
            return patient_id
        key = f"{data.get('PatientID')} {data.get('StudyInstanceUID')} {data.get('SOPInstanceUID')}"
        return f"patient_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def read_patient(
    folder: Path,
    protocol_name: str,
    names: RoiNames,
    *,
    size: str = "base",
    use_plan: bool = True,
    start: Path | None = None,
    show_identifiers: bool = False,
    machine: str = MACHINE,
) -> DicomPatient:
    """Read CT and structure set, and plan and dose where there are some.

    Args:
        folder: anything below it belongs to one patient.
        protocol_name: the protocol, shipped or a YAML file, that gives targets and their prescription.
        names: which ROI is which structure.
        size: name of a size; it gives voxels, control points and beamlets.
        use_plan: take arcs, isocentre, leaves and monitor units of an RTPLAN.
        start: an RTPLAN to take in place of one in the folder.
        show_identifiers: name the case by Patient ID.
        machine: shipped machine or path of a YAML.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    folder, protocol = Path(folder), load_protocol(protocol_name)
    files = find_files(folder)
    structure_file = _structure_file(files, folder)
    structures = read_structure_set(structure_file.path)
    frames = structures.frame_uids or [uid for uid in (structure_file.frame_of_reference_uid,) if uid]
    ct = read_ct(choose_series(files, structures.series_uids, frames, folder))
    if not set(frames) & {ct.frame_of_reference_uid} and frames and ct.frame_of_reference_uid:
        _check_frame(structure_file.path, frames[0], ct.frame_of_reference_uid)
    with naming(folder):
        ct.check_air()
    with naming(structure_file.path):
        volumes = structure_volumes(ct, structures, names, protocol, get_size(size).voxel_mm)
    grid, masks = volumes.grid, volumes.masks
    link = _link(ct, structures, ct.frame_of_reference_uid or next(iter(frames), ""), structure_file.path)
    plan_path = start or (_plan_path(files, folder) if use_plan else None)
    beams = _beams(plan_path, folder, masks, grid, protocol, link, size, load_machine(machine))
    case = Case(
        case_id=patient_name(folder, show_identifiers),
        source="dicom",
        grid=grid,
        hu=torch.from_numpy(volumes.hu),
        structures=masks,
        prescription_gy={name: dose for name, dose in protocol.prescription_gy.items() if name in masks},
        fractions=protocol.fractions,
        isocentre_mm=beams.isocentre_mm,
        arcs=beams.arcs,
        beamlets=beams.beamlets,
        machine_name=machine,
        protocol=protocol_name,
    )
    with naming(plan_path or structure_file.path):
        check_beams(case)
    return DicomPatient(case, link, volumes.report, beams.plan, _dose(files, grid, link))


def _check_frame(path: Path, frame_uid: str, ct_frame_uid: str) -> None:
    """Coordinates of a file must be the CT's, as far as both say whose they are."""
    if frame_uid and ct_frame_uid and frame_uid != ct_frame_uid:
        raise ValueError(f"{path}: other frame of reference than the CT, expected the same")


def _structure_file(files: list[DicomFile], folder: Path) -> DicomFile:
    found = only_one(files, "RTSTRUCT", folder)
    if found is None:
        raise ValueError(f"{folder}: no RTSTRUCT among {len(files)} DICOM files, expected one")
    return found


def _link(ct: CtSeries, structures: StructureSet, frame_uid: str, path: Path) -> PatientLink:
    first = ct.first
    with clear_errors(path):
        words = {field: str(first.get(keyword) or "") for field, keyword in KEYWORDS.items()}
    with naming(path):
        return PatientLink(frame_of_reference_uid=frame_uid, structure_set_uid=structures.uid, **words)


def _plan_path(files: list[DicomFile], folder: Path) -> Path | None:
    found = only_one(files, "RTPLAN", folder)
    return None if found is None else found.path


def _beams(
    plan_path: Path | None,
    folder: Path,
    masks: dict[str, Tensor],
    grid: VolumeGrid,
    protocol: Protocol,
    link: PatientLink,
    size: str,
    machine: Machine,
) -> Beams:
    cut = get_size(size)
    if plan_path is not None:
        plan = read_rtplan(plan_path)
        _check_frame(plan_path, plan.frame_of_reference_uid, link.frame_of_reference_uid)
        return planned_beams(plan, protocol, machine, cut)
    target = torch.stack([masks[name] for name in protocol.prescription_gy if name in masks]).any(dim=0)
    points_mm = grid.centres_mm(target.flatten().nonzero()[:, 0])
    if len(points_mm) == 0:
        raise ValueError(f"{folder}: the target holds no voxel of the planning grid, expected a larger one")
    return default_beams(points_mm, link.patient_position, machine, cut, folder)


def _dose(files: list[DicomFile], grid: VolumeGrid, link: PatientLink) -> Float[Tensor, "z y x"] | None:
    """The dose of a whole plan if there is just one."""
    whole = [file for file in files if file.modality == "RTDOSE" and summation_type(file.path) == "PLAN"]
    if len(whole) != 1:
        return None
    _check_frame(whole[0].path, whole[0].frame_of_reference_uid, link.frame_of_reference_uid)
    return read_rtdose(whole[0].path, grid)
