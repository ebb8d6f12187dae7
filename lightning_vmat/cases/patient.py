"""Opens the patient that a command works on: a case of a cohort, or a DICOM folder."""

from __future__ import annotations

from dataclasses import dataclass, fields
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


@dataclass(frozen=True)
class DicomOptions:
    """Options of the commands that read a patient's DICOM folder; a case that is prepared has its own values.

    Args:
        protocol: shipped protocol or YAML file; None for the default of `read_dicom`.
        roi_names: YAML file that maps ROI names to structures; None for the shipped one.
        size: name of a size; None for the default of `read_dicom`.
        use_plan: take arcs and isocentre from an RTPLAN in the folder.
        show_identifiers: name the case by Patient ID.
    """

    protocol: str | None = None
    roi_names: Path | None = None
    size: str | None = None
    use_plan: bool = True
    show_identifiers: bool = False

    def check_unused(self, source: str) -> None:
        """Raise a ValueError that names the options that are given, which a source other than DICOM does not use."""
        given = [f"{one.name} {value}" for one in fields(self) if (value := getattr(self, one.name)) != one.default]
        if given:
            raise ValueError(f"{', '.join(given)}: expected with a DICOM folder only, not with {source}")


def holds_dicom(folder: Path) -> bool:
    """Whether any file below the folder is DICOM."""
    return folder.is_dir() and any(looks_like_dicom(path) for path in folder.rglob("*"))


def open_patient(
    folder: Path,
    dicom: DicomOptions,
    start: Path | None = None,
    machine: str | None = None,
    reader: str | None = None,
) -> OpenedPatient:
    """Open a case, or a patient's DICOM folder; with `reader`, whatever that function makes of the folder.

    Args:
        folder: folder of the case or patient.
        dicom: options for a DICOM folder; refused for anything else.
        start: RTPLAN to start from.
        machine: shipped machine or YAML file to plan for; the case's own if None, the default one for DICOM.
        reader: registered name or import path of a reader.

    Raises:
        ValueError: see `open_case` and `open_dicom`; options for DICOM with something else.
    """
    if reader is not None:
        dicom.check_unused(f"--reader {reader}")
        return _started(_on_machine(read_by(folder, reader), machine, folder), None, None, start)
    if (folder / CASE_FILE).is_file():
        dicom.check_unused(f"the case {folder}")
    elif holds_dicom(folder):
        return open_dicom(folder, dicom, start, machine)
    return open_case(folder, start, machine)


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
    folder: Path, dicom: DicomOptions, start: Path | None = None, machine: str | None = None
) -> OpenedPatient:
    """Open a patient's DICOM folder; an RTPLAN to start from gives arcs, isocentre and field.

    Raises:
        ValueError: DICOM files that cannot be read, or of several patients.
    """
    given = {name: value for name, value in vars(dicom).items() if value is not None}
    patient = read_dicom_patient(folder, start=start, machine=machine_name(machine or DEFAULT_MACHINE), **given)
    return OpenedPatient(patient.case, patient.dose_gy, patient.link, patient.plan if start else None, patient.rois)
