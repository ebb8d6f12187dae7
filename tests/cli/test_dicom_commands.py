"""From phantoms as DICOM to a cohort, a plan and files that a planning system imports."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pydicom
import pydicom.data
import pytest
import torch

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.dicom.patient import read_patient
from lightning_vmat.cases.dicom.roi_names import load_roi_names
from lightning_vmat.cases.dicom.rtdose import read_rtdose
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.plan_files import read_dose, read_plan
from lightning_vmat.cli import main
from lightning_vmat.export.delivery_timing import arc_timing
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.volume import VolumeGrid

SIZE = ["--size", "tiny"]
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dicom") / "patients"
    assert main(["prepare", "phantom", "--as-dicom", "--out", str(out), "--count", "2", "--jobs", "1", *SIZE]) == 0
    return out


def check_written(out: Path, case: Case) -> None:
    """RTPLAN and RTDOSE are valid, and what plan.safetensors and dose.nii.gz say, with jaws around the target."""
    plan, metadata = read_plan(out / "plan.safetensors")
    field = with_jaws(case, 8.0).beamlets
    rtplan = read_rtplan(out / "RTPLAN.dcm")
    back = rtplan.on_rows(case.beamlets)
    seen = field.inside_jaws.any(dim=1)
    assert 0 < int(seen.sum()) < len(seen)
    x1, x2, _, _ = field.field_mm  # tips behind a jaw come back at it
    for bank in ("left_mm", "right_mm"):
        found, expected = (getattr(one, bank)[:, seen].clamp(x1, x2) for one in (back, plan))
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(back.mu, plan.mu, atol=1e-4, rtol=0)
    assert tuple(metadata["jaws_mm"]) == field.field_mm
    written = rtplan.beamlet_grid(case.machine, case.beamlets.beamlet_width_mm)
    assert written.field_mm == field.field_mm
    measured_s = json.loads((out / "metrics.json").read_text())["delivery_s"]
    assert sum(arc_timing(arc, case.machine).seconds for arc in rtplan.beam_arcs) == pytest.approx(measured_s, rel=1e-3)
    dose_gy = read_dose(out / "dose.nii.gz", case.grid)
    torch.testing.assert_close(read_rtdose(out / "RTDOSE.dcm", case.grid), dose_gy, atol=1e-3, rtol=0)
    assert pydicom.dcmread(out / "RTDOSE.dcm").ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == rtplan.uid


def check_valid(paths: list[Path]) -> None:
    """An independent validator finds no error in the files."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("all but this passed: dciodvfy (Debian package dicom3tools) is not installed")
    for path in paths:
        result = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert "Error" not in result.stderr + result.stdout and "RT" in result.stderr + result.stdout


def test_phantom_to_dicom_to_cohort_to_plan(patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = tmp_path / "cohort"
    assert main(["prepare", "dicom", str(patients), "--out", str(cohort), "--jobs", "1", *SIZE]) == 0
    folders = sorted(cohort.glob("patient_*"))
    assert len(folders) == 2
    kept = "".join(path.read_text() for path in cohort.rglob("*.yaml"))
    assert "phantom_000" not in kept
    out = tmp_path / "plan"
    assert main(["plan", str(folders[0]), "--out", str(out), "--voxels", "500"]) == 0
    check_written(out, read_case(folders[0]))
    data = pydicom.dcmread(out / "RTPLAN.dcm")
    structure_sets = {pydicom.dcmread(path).SOPInstanceUID for path in patients.rglob("RTSTRUCT.dcm")}
    assert data.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID in structure_sets
    assert "phantom_000" not in "".join(capsys.readouterr())
    check_valid([out / "RTPLAN.dcm", out / "RTDOSE.dcm", *sorted(patients.rglob("RTSTRUCT.dcm"))])


def test_plan_of_a_dicom_folder(patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = patients / "phantom_0000", tmp_path / "plan"
    assert main(["plan", str(folder), "--out", str(out), "--voxels", "500", *SIZE]) == 0
    plan = pydicom.dcmread(out / "RTPLAN.dcm")
    source = pydicom.dcmread(folder / "RTSTRUCT.dcm")
    assert (plan.PatientID, plan.StudyInstanceUID) == (source.PatientID, source.StudyInstanceUID)
    assert plan.FrameOfReferenceUID == source.FrameOfReferenceUID
    texts = "".join((*capsys.readouterr(), (out / "report.html").read_text(), (out / "metrics.json").read_text()))
    assert "phantom_0000" not in texts.replace(str(folder), "")
    assert json.loads((out / "metrics.json").read_text())["machine_violations"] == 0


@pytest.mark.slow
def test_a_dicom_folder_is_planned_for_another_machine(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Leaves without interdigitation; the plan is then a start for the same machine only, and a cohort keeps it."""
    folder, out = patients / "phantom_0000", tmp_path / "plan"
    machine = ["--machine", "elekta_mlci2"]
    assert main(["plan", str(folder), "--out", str(out), "--voxels", "500", *SIZE, *machine]) == 0
    assert json.loads((out / "metrics.json").read_text())["machine_violations"] == 0
    written = out / "RTPLAN.dcm"
    assert len(read_rtplan(written).motions[0].leaf_edges_mm) == 41
    check_valid([written])
    again = ["plan", str(folder), "--start", str(written), "--planner", "fluence", "--voxels", "500", *SIZE]
    assert main([*again, *machine, "--out", str(tmp_path / "again")]) == 0
    compared = json.loads((tmp_path / "again" / "metrics.json").read_text())["compared"]
    assert not any(compared["machine_violations_by_limit"].values()) and compared["delivery_s"] > 50
    assert main([*again, "--out", str(tmp_path / "refused")]) == 2
    assert (
        "expected those of truebeam_millennium120; `vmat plan` and `vmat prepare` take another --machine"
        in capsys.readouterr().err
    )
    cohort = tmp_path / "cohort"
    make = ["prepare", "dicom", str(patients), "--out", str(cohort), "--jobs", "1", *SIZE]
    assert main([*make, *machine]) == 0
    [case_folder, *_] = sorted(cohort.glob("patient_*"))
    assert read_case(case_folder).machine_name == "elekta_mlci2"
    wrong = ["plan", str(case_folder), "--machine", "truebeam_hd120", "--out", str(tmp_path / "wrong")]
    assert main(wrong) == 2
    assert f"{case_folder}: beamlets: leaf_edges_mm holds -120.0, expected leaf boundaries" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_go_where_told_and_nowhere_else(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, home, out = tmp_path / "here", tmp_path / "home", tmp_path / "out"
    here.mkdir()
    home.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    before = contents(patients)
    options = ["--planner", "reference", "--voxels", "300", "--dose_bits", "32", *SIZE]
    assert main(["plan", str(patients / "phantom_0001"), "--out", str(out), *options]) == 0
    assert contents(patients) == before and contents(here) == {} and contents(home) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "home", "out"]
    expected = {"RTPLAN.dcm", "RTDOSE.dcm", "plan.safetensors", "dose.nii.gz", "metrics.json", "report.html"}
    assert set(contents(out)) == expected
    assert pydicom.dcmread(out / "RTDOSE.dcm").BitsStored == 32
    dose_gy = read_dose(out / "dose.nii.gz", read_patient_grid(patients / "phantom_0001"))
    torch.testing.assert_close(
        read_rtdose(out / "RTDOSE.dcm", read_patient_grid(patients / "phantom_0001")), dose_gy, atol=1e-5, rtol=0
    )


def read_patient_grid(folder: Path) -> VolumeGrid:
    return read_patient(folder, "prostate_60gy_20fx", load_roi_names(), size="tiny").case.grid


def test_identifiers_are_kept_when_asked_for(patients: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "dicom", str(patients), "--out", str(tmp_path), "--jobs", "1", "--show-identifiers"]
    assert main([*arguments, *SIZE]) == 0
    assert sorted(path.name for path in tmp_path.glob("phantom_*")) == ["phantom_0000", "phantom_0001"]
    assert "patient_id: phantom_0001" in (tmp_path / "phantom_0001" / "dicom.yaml").read_text()


def test_the_plan_of_a_patient_is_kept_with_its_dose(tmp_path: Path) -> None:
    arguments = ["prepare", "phantom", "--as_dicom", "true", "--plan", "true", "--count", "1", "--jobs", "1"]
    assert main([*arguments, "--out", str(tmp_path / "patients"), *SIZE]) == 0
    assert main(["prepare", "dicom", str(tmp_path / "patients"), "--out", str(tmp_path / "cohort"), *SIZE]) == 0
    [folder] = (tmp_path / "cohort").glob("patient_*")
    case, (plan, metadata) = read_case(folder), read_plan(folder / "plan.safetensors")
    assert metadata["planner"] == "clinical"
    assert tuple(plan.left_mm.shape) == case.fluence_shape[:2]
    ptv = case.structures["PTV"]
    assert read_dose(folder / "clinical_dose.nii.gz", case.grid)[ptv].mean() == pytest.approx(60, rel=0.05)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["prepare", "dicom", "nowhere"], "nowhere: no such folder"),
        (["prepare", "dicom", "EMPTY"], "expected a CT and an RTSTRUCT"),
        (["prepare", "dicom", "BROKEN"], "CT_0005.dcm"),
        (["plan", "BROKEN"], "CT_0005.dcm"),
        (["plan", "SHORT"], "RTSTRUCT.dcm"),
        (["plan", "PATIENT", "--start", "SHORT/RTSTRUCT.dcm"], "RTSTRUCT.dcm"),
        (["plan", "PATIENT", "--start", "OTHERS"], "rtplan.dcm: beam 1: BeamType STATIC, expected DYNAMIC"),
        (["plan", "PATIENTS"], "2 patients, expected one"),
        (["plan", "EMPTY"], "expected a case folder"),
        (["prepare", "dicom", "PATIENTS", "--protocol", "head_and_neck_70gy_35fx"], "no ROI for PTV70"),
        (["prepare", "dicom", "PATIENTS", "--roi_names", "none.yaml"], "none.yaml"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_case(
    command: list[str], named: str, patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    broken = shutil.copytree(patients / "phantom_0000", tmp_path / "broken")
    (broken / "CT_0005.dcm").write_bytes((broken / "CT_0005.dcm").read_bytes()[:3000])
    short = shutil.copytree(patients / "phantom_0000", tmp_path / "short") / "RTSTRUCT.dcm"
    short.write_bytes(short.read_bytes()[:-5000])
    places = {"EMPTY": tmp_path / "empty", "BROKEN": broken, "PATIENTS": patients, "PATIENT": patients / "phantom_0000"}
    places |= {"SHORT": short.parent, "SHORT/RTSTRUCT.dcm": short, "OTHERS": TEST_FILES / "rtplan.dcm"}
    arguments = [str(places.get(word, word)) for word in command]
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out), *SIZE, *(["--jobs", "1"] if "prepare" in command else [])]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert len(errors) == 1 and named in errors[0]
    assert not list(out.glob("*/*")) and not list(out.glob("*.dcm"))
