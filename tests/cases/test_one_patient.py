"""Objects of two patients are not planned together, however they say so; nothing shows whose they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from small_patient import PLAN_UID, arc, rewrite, write_dose, write_plan, write_small_patient

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cli import main

SIZE = ["--size", "tiny"]
OTHER_ID, OTHER_UID = "QX-9999-Z", "1.2.9.9"


def as_other(data: Dataset) -> None:
    data.PatientID, data.PatientName = OTHER_ID, "Roe^Richard"


def without_frame(data: Dataset) -> None:
    """Another patient's object that says no frame of reference."""
    as_other(data)
    for keyword in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceSequence"):
        if keyword in data:
            del data[keyword]
    for roi in data.get("StructureSetROISequence") or []:
        roi.ReferencedFrameOfReferenceUID = ""


def without_id(data: Dataset) -> None:
    """Another patient's object, made anonymous: only the structure set that it refers to tells."""
    data.PatientID = ""
    del data.FrameOfReferenceUID
    data.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID = OTHER_UID


def other_frame(data: Dataset) -> None:
    data.FrameOfReferenceUID = OTHER_UID


def other_series(data: Dataset) -> None:
    """A structure set on another CT, without a frame of reference."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, study.RTReferencedSeriesSequence = OTHER_UID, [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = "", [study]
    data.ReferencedFrameOfReferenceSequence, data.FrameOfReferenceUID = [frame], ""
    for roi in data.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = ""


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = write_small_patient(tmp_path / "pat")
    write_plan(folder)
    write_dose(folder)
    return folder


def refusal(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses its input."""
    capsys.readouterr()
    assert main([*arguments, "--out", str(out)]) == 2
    printed = capsys.readouterr()
    [line] = [line for line in printed.err.splitlines() if line.startswith("vmat: error: ")]
    assert not out.exists()
    assert not any(name in printed.err + printed.out for name in (OTHER_ID, "Roe", "Doe", "4711", OTHER_UID))
    return line


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("rp.dcm", as_other, "rp.dcm: RTPLAN of another patient than rs.dcm"),
        ("rp.dcm", without_frame, "rp.dcm: RTPLAN of another patient"),
        ("rp.dcm", without_id, "rp.dcm: refers to another structure set"),
        ("rp.dcm", other_frame, "rp.dcm: other frame of reference than the CT"),
        ("rs.dcm", without_frame, "CT of another patient than rs.dcm"),
        ("rs.dcm", other_series, "rs.dcm: drawn on another CT series than ct_00.dcm"),
        ("ct_07.dcm", as_other, "ct_07.dcm: CT of another patient"),
        ("ct_07.dcm", lambda data: setattr(data, "PatientPosition", "FFS"), "ct_07.dcm: patient position FFS, but HFS"),
        ("ct_10.dcm", lambda data: data.__delattr__("FrameOfReferenceUID"), "ct_10.dcm: other frame of reference"),
        ("ct_10.dcm", lambda data: data.__delattr__("RescaleIntercept"), "ct_10.dcm: CT with RescaleSlope, expected"),
        ("rd.dcm", as_other, "rd.dcm: RTDOSE of another patient"),
        ("rd.dcm", other_frame, "rd.dcm: other frame of reference"),
        ("rp.dcm", lambda data: setattr(data, "Modality", "RTDOSE"), "modality RTDOSE, expected RTPLAN by its SOP"),
    ],
)
def test_files_of_two_patients_are_refused(
    patient: Path,
    name: str,
    change: Callable[[Dataset], object],
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rewrite(patient / name, change)
    assert named in refusal(["prepare", "dicom", str(patient), "--jobs", "1", *SIZE], tmp_path / "out", capsys)


def of_another(data: Dataset) -> None:
    as_other(data)
    data.ReferencedStructureSetSequence = []


@pytest.mark.parametrize("change", [of_another, without_frame, without_id, other_frame])
@pytest.mark.parametrize("option", ["--start", "--compare"])
@pytest.mark.parametrize(("opened", "size"), [("case", []), ("pat", SIZE)])
def test_a_plan_of_another_patient_is_neither_start_nor_comparison(
    tmp_path: Path,
    change: Callable[[Dataset], object],
    option: str,
    opened: str,
    size: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    patient = write_small_patient(tmp_path / "pat")
    if opened == "case":
        assert main(["prepare", "dicom", str(patient), "--out", str(tmp_path / "out"), "--jobs", "1", *SIZE]) == 0
        next((tmp_path / "out").glob("patient_*")).rename(tmp_path / "case")
        rmtree_of(tmp_path / "out")
    full_turn = [arc(gantry_deg=[180.0 + 30.0 * k for k in range(13)])]
    plan = write_plan(patient, full_turn, change=change, name="other.dcm").rename(tmp_path / "other.dcm")
    line = refusal(["plan", str(tmp_path / opened), option, str(plan), *size], tmp_path / "out", capsys)
    assert "other.dcm: " in line and ("another" in line or "other frame" in line)


def rmtree_of(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("on_ct", "planned", "couch_deg"),
    [("HFS", "HFS", 0.0), ("FFS", "FFS", 180.0), ("FFS", "", 180.0), ("FFP", None, 180.0), ("HFS", None, 0.0)],
)
def test_the_patient_lies_as_on_the_ct(tmp_path: Path, on_ct: str, planned: str | None, couch_deg: float) -> None:
    patient = write_small_patient(tmp_path / "pat", position=on_ct)

    def change(data: Dataset) -> None:
        if planned is None:
            del data.PatientSetupSequence
            del data.BeamSequence[0].ReferencedPatientSetupNumber
        else:
            data.PatientSetupSequence[0].PatientPosition = planned

    write_plan(patient, [arc(gantry_deg=range(30, 151, 30))], change=change)
    assert main(["prepare", "dicom", str(patient), "--out", str(tmp_path / "out"), "--jobs", "1", *SIZE]) == 0
    [found] = read_case(next((tmp_path / "out").glob("patient_*"))).arcs
    assert found.couch_deg == couch_deg
    assert found.gantry_start_deg == (210.0 if on_ct == "FFP" else 30.0)


def lying_prone(data: Dataset) -> None:
    data.PatientSetupSequence[0].PatientPosition = "HFP"


def second_setup(data: Dataset) -> None:
    """The second beam's setup is prone."""
    setup = Dataset()
    setup.PatientSetupNumber, setup.PatientPosition = 2, "HFP"
    data.PatientSetupSequence.append(setup)
    data.BeamSequence[1].ReferencedPatientSetupNumber = 2


@pytest.mark.parametrize(
    ("change", "named"),
    [(lying_prone, "patient position HFP, but HFS on the CT"), (second_setup, "patient positions HFP and HFS")],
)
def test_a_plan_that_contradicts_the_ct_is_refused(
    tmp_path: Path, change: Callable[[Dataset], object], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = write_small_patient(tmp_path / "pat")
    write_plan(patient, [arc(1, range(30, 151, 30)), arc(2, range(150, 29, -30), "CC")], change=change)
    assert named in refusal(["prepare", "dicom", str(patient), "--jobs", "1", *SIZE], tmp_path / "out", capsys)


def test_a_setup_that_no_beam_uses_says_nothing(tmp_path: Path) -> None:
    def change(data: Dataset) -> None:
        second_setup(data)
        data.BeamSequence[1].ReferencedPatientSetupNumber = 1

    patient = write_small_patient(tmp_path / "pat")
    write_plan(patient, [arc(1, range(30, 151, 30)), arc(2, range(150, 29, -30), "CC")], change=change)
    assert main(["prepare", "dicom", str(patient), "--out", str(tmp_path / "out"), "--jobs", "1", *SIZE]) == 0
    assert dcmread(patient / "rp.dcm").SOPInstanceUID == PLAN_UID
