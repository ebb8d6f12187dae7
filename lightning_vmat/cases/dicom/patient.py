"""Reads a patient's DICOM folder as a case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.case_files import check_beams
from lightning_vmat.cases.dicom.beam_table import UnsupportedPlan
from lightning_vmat.cases.dicom.beams import Beams, default_beams, planned_beams
from lightning_vmat.cases.dicom.clinical_dose import clinical_dose
from lightning_vmat.cases.dicom.ct import CtSeries, choose_series, read_ct
from lightning_vmat.cases.dicom.dicom_references import IDENTIFIERS, PatientLink
from lightning_vmat.cases.dicom.files import DicomFile, clear_errors, find_files, naming, only_one
from lightning_vmat.cases.dicom.one_patient import (
    check_patient_ids,
    check_plan,
    check_series,
    check_structures,
    patient_check,
)
from lightning_vmat.cases.dicom.patient_folders import patient_name, structure_file_of
from lightning_vmat.cases.dicom.roi_names import RoiNames
from lightning_vmat.cases.dicom.roi_report import RoiReport
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.rtstruct import StructureSet, read_structure_set
from lightning_vmat.cases.dicom.structure_volumes import structure_volumes
from lightning_vmat.cases.dicom.valid_values import valid_or_blank
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.objectives.protocol import Protocol, load_protocol
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.machine import DEFAULT_MACHINE, Machine, load_machine
from lightning_vmat.plan.volume import VolumeGrid


@dataclass(frozen=True)
class DicomPatient:
    """The content of a DICOM folder.

    Args:
        case: the case, ready to plan.
        link: attributes that tie a new plan to the patient.
        rois: which ROI became which structure.
        plan: plan of the RTPLAN; None without one, or if it is not used.
        dose_gy: dose of the RTDOSE files, whole course; None without one.
    """

    case: Case
    link: PatientLink
    rois: RoiReport
    plan: Plan | None
    dose_gy: Float[Tensor, "z y x"] | None

    @property
    def roi_names(self) -> dict[str, str]:
        """Name of the ROI, by structure, of drawn structures."""
        return {source.structure: source.roi for source in self.rois.structures if source.roi}

    def __repr__(self) -> str:
        """Text without `link`, which identifies the patient."""
        dose = "no dose" if self.dose_gy is None else "a dose"
        return f"DicomPatient with {self.plan or 'no plan'} and {dose}\n{self.case!r}"


def read_patient(
    folder: Path,
    protocol_name: str,
    names: RoiNames,
    *,
    size: str = "base",
    use_plan: bool = True,
    start: Path | None = None,
    show_identifiers: bool = False,
    machine: str = DEFAULT_MACHINE,
) -> DicomPatient:
    """Read CT and structure set, and plan and dose if there are any.

    Args:
        folder: folder of one patient, with subfolders.
        protocol_name: shipped protocol or YAML file: targets and prescription.
        names: mapping of ROI names to structures.
        size: name of a size: voxels, control points and beamlets.
        use_plan: use arcs, isocentre, leaves and monitor units of the RTPLAN.
        start: RTPLAN to use instead of one in the folder.
        show_identifiers: name the case by Patient ID.
        machine: shipped machine or path of a YAML file.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    folder, protocol = Path(folder), load_protocol(protocol_name)
    files = find_files(folder)
    structure_file = structure_file_of(files, folder)
    structures = read_structure_set(structure_file.path)
    frames = structures.frame_uids or [uid for uid in (structure_file.frame_of_reference_uid,) if uid]
    slices = choose_series(files, structures.series_uids, frames, folder)
    check_patient_ids(files, structure_file)
    check_series(files, slices[0])
    check_structures(structure_file.path, structures.series_uids, frames, slices[0])
    ct = read_ct(slices)
    with naming(folder):
        ct.check_air()
    with naming(structure_file.path):
        volumes = structure_volumes(ct, structures, names, protocol, get_size(size).voxel_mm)
    grid, masks = volumes.grid, volumes.masks
    link = _link(ct, structures, ct.frame_of_reference_uid or next(iter(frames), ""), structure_file.path)
    plan_path = start or (_plan_path(files, folder) if use_plan else None)
    with naming_the_way_out(plan_path if start is None else None):
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
    reached = {name: masks[name] for name in (BODY, *case.prescription_gy)}
    dose_gy = clinical_dose(files, grid, link, reached)
    return DicomPatient(case, link, volumes.report, beams.plan, dose_gy)


def _link(ct: CtSeries, structures: StructureSet, frame_uid: str, path: Path) -> PatientLink:
    first = ct.first
    with clear_errors(path):
        words = {name: valid_or_blank(keyword, first.get(keyword)) for name, keyword in IDENTIFIERS.items()}
        study_uid = str(first.get("StudyInstanceUID") or "")
        check = patient_check(str(first.get("PatientID") or "").strip(), study_uid)
        position = str(first.get("PatientPosition") or "")
    with naming(path):
        return PatientLink(study_uid, frame_uid, structures.uid, position, check, **words)


@contextmanager
def naming_the_way_out(plan_path: Path | None) -> Iterator[None]:
    """Add to the error about an unsupported plan in the folder how to read the patient without it."""
    try:
        yield
    except UnsupportedPlan as error:
        if plan_path is None:
            raise
        raise UnsupportedPlan(f"{error}; --use_plan false reads the patient without the plan") from error


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
        plan = read_rtplan(plan_path, largest_sector_deg=cut.sector_deg, ct_position=link.patient_position)
        check_plan(plan, link)
        return planned_beams(plan, protocol, machine, cut)
    target = torch.stack([masks[name] for name in protocol.prescription_gy if name in masks]).any(dim=0)
    points_mm = grid.centres_mm(target.flatten().nonzero()[:, 0])
    if len(points_mm) == 0:
        raise ValueError(f"{folder}: the target contains no voxel of the planning grid, expected a larger target")
    return default_beams(points_mm, link.patient_position, machine, cut, folder)
