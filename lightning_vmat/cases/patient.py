"""Opens the patient that a command works on: a case of a cohort, or a DICOM folder."""

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
    """A case with what its source holds beside it; None for what is missing.

    Args:
        case: the case.
        clinical_dose_gy: dose of the clinical plan, whole course.
        link: DICOM objects of the patient.
        start: plan to start from.
        rois: which ROI became which structure.
    """

    case: Case
    clinical_dose_gy: Float[Tensor, "z y x"] | None
    link: PatientLink | None
    start: Plan | None
    rois: RoiReport | None = None

    @property
    def patient_position(self) -> str:
        """True patient position; HFS for a case without DICOM objects."""
        return self.link.patient_position if self.link else "HFS"


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
    """Open a case, or a patient's DICOM folder; with `reader`, whatever that function makes of the folder.

    Args:
        folder: folder of the case or patient.
        protocol: for DICOM: shipped protocol or YAML file.
        roi_names: for DICOM: YAML file that maps ROI names to structures.
        size: for DICOM: name of a size.
        use_plan: for DICOM: take arcs and isocentre from an RTPLAN in the folder.
        show_identifiers: for DICOM: name the case by Patient ID.
        start: RTPLAN to start from.
        machine: shipped machine or YAML file to plan for; the case's own if None, the default one for DICOM.
        reader: registered name or import path of a reader.

    Raises:
        ValueError: see `open_case` and `open_dicom`.
    """
    if reader is not None:
        return _started(_on_machine(read_by(folder, reader), machine, folder), None, None, start)
    if (folder / CASE_FILE).is_file() or not holds_dicom(folder):
        return open_case(folder, start, machine)
    return open_dicom(folder, protocol, roi_names, size, use_plan, show_identifiers, start, machine)


def open_case(folder: Path, start: Path | None = None, machine: str | None = None) -> OpenedPatient:
    """Open a case that `vmat prepare` wrote.

    Args:
        folder: folder of the case.
        start: RTPLAN that fits the case.
        machine: shipped machine or YAML file to plan for; the case's own if None.

    Raises:
        ValueError: no such case, a broken one, a machine whose leaves do not fit its field, or an RTPLAN of other
            fractions, arcs, isocentre or machine.
    """
    case = _on_machine(read_case(folder), machine, folder)
    clinical_file = folder / CLINICAL_DOSE_FILE
    dose_gy = read_dose(clinical_file, case.grid) if clinical_file.is_file() else None
    return _started(case, dose_gy, read_link(folder), start, read_report(folder))


def _on_machine(case: Case, machine: str | None, folder: Path) -> Case:
    """The case on another machine, whose leaves must fit the rows of its field; the case itself if None."""
    if machine is None:
        return case
    case = case.with_settings(machine_name=machine_name(machine))
    with naming(folder):
        check_beams(case)
    return case


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
    """Open a patient's DICOM folder; an RTPLAN to start from gives arcs, isocentre and field.

    Raises:
        ValueError: DICOM files that cannot be read, or of several patients.
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
