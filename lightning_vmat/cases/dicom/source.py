"""Patients from DICOM as sources of a cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_vmat.cases.dicom.dicom_references import LINK_FILE, link_text
from lightning_vmat.cases.dicom.patient import read_patient
from lightning_vmat.cases.dicom.roi_names import RoiNames
from lightning_vmat.cases.dicom.roi_report import ROI_FILE, report_text
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.plan.machine import DEFAULT_MACHINE


@dataclass(frozen=True)
class DicomSource:
    """A patient's DICOM folder. `dicom.yaml` stores the links between a plan and the patient.

    Args:
        name: name of the case.
        folder: folder of the patient.
        size: name of a size.
        protocol: shipped protocol or path of a YAML file.
        roi_names: mapping of ROI names to structures.
        use_plan: use arcs, leaves and monitor units of the RTPLAN.
        show_identifiers: keep the patient's identity.
        machine: shipped machine or path of a YAML file.
    """

    name: str
    folder: Path
    size: str
    protocol: str
    roi_names: RoiNames
    use_plan: bool
    show_identifiers: bool
    machine: str = DEFAULT_MACHINE

    def load(self) -> SourceCase:
        """Read the patient: the case, with the clinical dose and plan where the folder holds them."""
        patient = read_patient(
            self.folder,
            self.protocol,
            self.roi_names,
            size=self.size,
            use_plan=self.use_plan,
            show_identifiers=self.show_identifiers,
            machine=self.machine,
        )
        link = patient.link if self.show_identifiers else patient.link.without_identifiers()
        doses = {} if patient.dose_gy is None else {"clinical_dose": patient.dose_gy}
        texts = {LINK_FILE: link_text(link, patient.roi_names), ROI_FILE: report_text(patient.rois)}
        return SourceCase(patient.case, doses=doses, plan=patient.plan, texts=texts)
