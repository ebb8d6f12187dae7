"""The patient that a command works on: a case of a cohort, or a DICOM folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.case_files import CASE_FILE, CLINICAL_DOSE_FILE, check_beams, read_case
from lightning_vmat.cases.dicom.dicom_references import PatientLink, read_link
from lightning_vmat.cases.dicom.files import looks_like_dicom, naming
from lightning_vmat.cases.dicom.roi_report import RoiReport, read_report
from lightning_vmat.cases.dicom.start import start_plan
from lightning_vmat.cases.plan_files import read_dose
from lightning_vmat.cases.readers import read_case as read_by
from lightning_vmat.cases.readers import read_dicom_patient
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import DEFAULT_MACHINE, machine_name


class OpenedPatient(NamedTuple):
    """A case; its clinical dose, its links to DICOM objects, a plan to start from, and ROIs where there are some."""

    case: Case
    clinical_dose_gy: Float[Tensor, "z y x"] | None
    link: PatientLink | None
    start: Plan | None
    rois: RoiReport | None = None


def holds_dicom(folder: Path) -> bool:
    """Whether any file below the folder is DICOM."""
    return folder.is_dir() and any(looks_like_dicom(path) for path in folder.rglob("*"))


def open_patient(
    folder: Path,
    protocol: str,
    roi_names: Path | None,
    size: str,
    use_plan: bool,
    show_identifiers: bool,
    start: Path | None = None,
    machine: str | None = None,
    reader: str | None = None,
) -> OpenedPatient:
    """A case, or a patient's DICOM folder, to which the settings apply; or what another reader makes of the folder.

    Raises:
        ValueError: see `open_case` and `open_dicom`.
    """
    if reader is not None:
        return _started(read_by(folder, reader), None, None, start)
    if (folder / CASE_FILE).is_file() or not holds_dicom(folder):
        return open_case(folder, start, machine)
    return open_dicom(folder, protocol, roi_names, size, use_plan, show_identifiers, start, machine)


def open_case(folder: Path, start: Path | None = None, machine: str | None = None) -> OpenedPatient:
    """A case as `vmat prepare` wrote it.

    Args:
        folder: of the case.
        start: an RTPLAN that fits it.
        machine: shipped machine or path of a YAML to plan for; the case's own if None.

    Raises:
        ValueError: no such case, a broken one, a machine whose leaves do not fit its field, or an RTPLAN of other arcs,
            isocentre or machine.
    """
    case = read_case(folder)
    if machine is not None:
        case = case.with_settings(machine_name=machine_name(machine))
        with naming(folder):
            check_beams(case)
    clinical_file = folder / CLINICAL_DOSE_FILE
    dose_gy = read_dose(clinical_file, case.grid) if clinical_file.is_file() else None
    return _started(case, dose_gy, read_link(folder), start, read_report(folder))


def _started(
    case: Case,
    dose_gy: Float[Tensor, "z y x"] | None,
    link: PatientLink | None,
    start: Path | None,
    rois: RoiReport | None = None,
) -> OpenedPatient:
    if start is None:
        return OpenedPatient(case, dose_gy, link, None, rois)
    jawed, plan = start_plan(start, case, link)
    return OpenedPatient(jawed, dose_gy, link, plan, rois)


def open_dicom(
    folder: Path,
    protocol: str,
    roi_names: Path | None,
    size: str,
    use_plan: bool,
    show_identifiers: bool,
    start: Path | None = None,
    machine: str | None = None,
) -> OpenedPatient:
    """A patient's DICOM folder; with the arcs, isocentre and field of the RTPLAN to start from, if there is one.

    Raises:
        ValueError: DICOM that cannot be read, or of several patients.
    """
    patient = read_dicom_patient(
        folder,
        protocol,
        size=size,
        roi_names=roi_names,
        use_plan=use_plan,
        start=start,
        show_identifiers=show_identifiers,
        machine=machine_name(machine or DEFAULT_MACHINE),
    )
    return OpenedPatient(patient.case, patient.dose_gy, patient.link, patient.plan if start else None, patient.rois)
