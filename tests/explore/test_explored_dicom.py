"""A patient from DICOM: explored without identifiers, exported with them in DICOM alone."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

import lightning_vmat as vmat
from lightning_vmat.cases.patient import DicomOptions, open_patient
from lightning_vmat.explore.drawings import Drawings
from lightning_vmat.explore.export import export_plan
from lightning_vmat.explore.session import Session
from lightning_vmat.export.patient_folder import write_patient

PATIENT_ID = "phantom_0000"  # as `write_patient` names the phantom's patient


@pytest.mark.slow
def test_identifiers_stay_in_dicom(tmp_path: Path) -> None:
    write_patient(tmp_path / "patient", vmat.phantom(0, size="tiny"))
    opened = open_patient(tmp_path / "patient", DicomOptions(size="tiny"))
    session = Session(opened, "conventional@5", voxels=500)
    session.wait()
    assert PATIENT_ID not in str(Drawings(session).page()) and PATIENT_ID not in str(session.state())
    export_plan(session, 1, tmp_path / "plan")
    for name in ("report.html", "metrics.json"):
        assert PATIENT_ID not in (tmp_path / "plan" / name).read_text()
    plan, dose = (pydicom.dcmread(tmp_path / "plan" / name) for name in ("RTPLAN.dcm", "RTDOSE.dcm"))
    assert plan.PatientID == dose.PatientID == PATIENT_ID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    series = pydicom.dcmread(next(path for path in (tmp_path / "patient").iterdir() if path.name.startswith("CT")))
    assert plan.FrameOfReferenceUID == series.FrameOfReferenceUID
    session.close()
