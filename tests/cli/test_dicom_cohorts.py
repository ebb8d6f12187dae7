"""Cohorts from DICOM as clinics have it: some patients cannot be read, values are odd, nobody is to be recognised."""

from __future__ import annotations

import shutil
import sys
import warnings
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from pydicom import DataElement, dcmread
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parents[1] / "cases"))
from small_patient import arc, rewrite, write_dose, write_plan, write_small_patient

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.dicom.quiet import quiet_pydicom
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import read_cohort

SIZE = ["--size", "tiny"]
VALID = {
    "PatientName": "Doe^Jane",
    "PatientID": "QX-4711-Z",
    "PatientBirthDate": "19500203",
    "PatientSex": "F",
    "OtherPatientNames": "Roe^Janet",
    "EthnicGroup": "Samaritan",
    "PatientComments": "sings in a choir",
    "PatientBirthTime": "031415",
    "OtherPatientIDs": "QX-0815-Z",
}
INVALID = {"PatientBirthDate": "1950/02/03", "PatientSex": "Doe, Jane (female)", "StudyTime": "half past nine"}


def prepare(source: Path, out: Path, *options: str) -> int:
    return main(["prepare", "dicom", str(source), "--out", str(out), "--jobs", "1", *SIZE, *options])


def named(number: int) -> dict[str, str]:
    return {**VALID, "PatientID": f"QX-{number}-Z"}


def write_named(folder: Path, values: dict[str, str]) -> Path:
    """A patient with plan and dose, all of whose files hold some values, whether these are valid or not."""
    write_small_patient(folder)
    write_plan(folder)
    write_dose(folder)
    for path in folder.glob("*.dcm"):
        data = dcmread(path)
        for keyword, value in values.items():
            data[keyword] = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE)
        with quiet_pydicom():
            data.save_as(path)
    return folder


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    for number in range(4):
        write_named(tmp_path / "patients" / f"p{number}", named(number))
    return tmp_path / "patients"


def test_bad_patients_leave_a_cohort_of_the_others(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (patients / "p0" / "rs.dcm").unlink()
    (patients / "p1" / "ct_03.dcm").write_bytes((patients / "p1" / "ct_03.dcm").read_bytes()[:2000])
    rewrite(patients / "p2" / "rp.dcm", lambda data: setattr(data.BeamSequence[0], "BeamType", "STATIC"))
    capsys.readouterr()
    out = tmp_path / "cohort"
    assert prepare(patients, out) == 1
    cohort = read_cohort(out)
    names = [name for part in cohort.split.values() for name in part]
    assert names == [folder.name for folder in out.glob("patient_*")] and len(names) == 1
    reasons = yaml.safe_load((out / "left_out.yaml").read_text())
    for text in (yaml.safe_dump(reasons, width=10_000), capsys.readouterr().err):
        assert "p0: no RTSTRUCT among 13 DICOM files" in text
        assert "ct_03.dcm" in text
        assert "rp.dcm: beam 1: BeamType STATIC" in text and "--use_plan false" in text
        assert text.count("patient_") >= 3 and "QX-" not in text and "Doe" not in text
    assert len(reasons) == 3 and not set(reasons) & set(names)


def test_a_patient_that_was_mended_joins_the_cohort(patients: Path, tmp_path: Path) -> None:
    raw = (patients / "p2" / "rp.dcm").read_bytes()
    rewrite(patients / "p2" / "rp.dcm", lambda data: setattr(data.BeamSequence[0], "BeamType", "STATIC"))
    out = tmp_path / "cohort"
    assert prepare(patients, out) == 1
    assert len([name for part in read_cohort(out).split.values() for name in part]) == 3
    (patients / "p2" / "rp.dcm").write_bytes(raw)
    assert prepare(patients, out) == 0
    assert [len(part) for part in read_cohort(out).split.values()] == [2, 1, 1]
    assert not (out / "left_out.yaml").exists() and not (out / ".left_out").exists()


def test_machines_that_share_a_cohort_agree_on_who_is_left_out(patients: Path, tmp_path: Path) -> None:
    for name in ("p0", "p2"):
        rewrite(patients / name / "rp.dcm", lambda data: setattr(data.BeamSequence[0], "BeamType", "STATIC"))
    out = tmp_path / "cohort"
    statuses = [prepare(patients, out, "--shard", f"{number}/2") for number in (1, 2)]
    assert 1 in statuses
    assert len([name for part in read_cohort(out).split.values() for name in part]) == 2
    assert len(yaml.safe_load((out / "left_out.yaml").read_text())) == 2


def test_if_nobody_can_be_read_there_is_no_cohort(
    patients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in patients.iterdir():
        rewrite(folder / "rp.dcm", lambda data: setattr(data.BeamSequence[0], "BeamType", "STATIC"))
    capsys.readouterr()
    assert prepare(patients, tmp_path / "cohort") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert "BeamType STATIC" in line and "and 3 more patients" in line
    assert not (tmp_path / "cohort").exists()
    assert prepare(patients, tmp_path / "cohort", "--use_plan", "false") == 0


def test_a_patient_that_is_there_twice_is_left_out_once(patients: Path, tmp_path: Path) -> None:
    shutil.copytree(patients / "p1", patients / "p1_again")
    assert prepare(patients, tmp_path / "cohort") == 1
    [why] = yaml.safe_load((tmp_path / "cohort" / "left_out.yaml").read_text()).values()
    assert "p1_again: the same patient as" in why


def test_files_beside_folders_of_patients_are_refused(patients: Path, tmp_path: Path) -> None:
    shutil.copy(patients / "p1" / "rs.dcm", patients / "rs.dcm")
    assert prepare(patients, tmp_path / "cohort") == 2


def test_an_imrt_plan_need_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patient = write_small_patient(tmp_path / "pat")
    fixed = arc(1, [30, 30, 30], "NONE")
    plan = write_plan(patient, [fixed])
    capsys.readouterr()
    assert prepare(patient, tmp_path / "cohort") == 2
    assert "gantry stands (a static or step-and-shoot field)" in (line := capsys.readouterr().err)
    assert "--use_plan false reads the patient without the plan" in line
    assert prepare(patient, tmp_path / "cohort", "--use_plan", "false") == 0
    assert main(["plan", str(patient), "--start", str(plan), "--out", str(tmp_path / "out"), *SIZE]) == 2
    assert "use_plan" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, "explicit"])
@pytest.mark.parametrize("preamble", [False, True])
def test_files_without_transfer_syntax_are_read(tmp_path: Path, syntax: object, preamble: bool) -> None:
    patient = write_named(tmp_path / "pat", VALID)
    assert prepare(patient, tmp_path / "right") == 0
    for path in patient.glob("*.dcm"):
        data, out = dcmread(path), BytesIO()
        implicit, little = syntax is ImplicitVRLittleEndian, syntax is not ExplicitVRBigEndian
        if not little and "PixelData" in data:
            data.PixelData = data.pixel_array.astype(">u2").tobytes()
        bare = Dataset()
        bare.update(data)
        bare.save_as(out, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
        start = b"\0" * 128 + b"DICM" if preamble else b""
        path.write_bytes(start + out.getvalue())
    if preamble and syntax is ExplicitVRBigEndian:
        return  # after a preamble nothing tells the byte order
    assert prepare(patient, tmp_path / "found") == 0
    [right], [found] = (list((tmp_path / name).glob("patient_*")) for name in ("right", "found"))
    for path in sorted(right.rglob("*.nii.gz")):
        assert (found / path.relative_to(right)).read_bytes() == path.read_bytes()
    assert read_case(right).arcs == read_case(found).arcs


def everything(*folders: Path) -> bytes:
    return b"".join(path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_that_is_written_or_printed_tells_who_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    patient = write_named(tmp_path / "pat", VALID)
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert prepare(patient, cohort) == 0
        [case] = cohort.glob("patient_*")
        assert main(["plan", str(case), "--out", str(out), "--voxels", "300"]) == 0
        assert main(["plan", str(patient), "--out", str(tmp_path / "direct"), "--voxels", "300", *SIZE]) == 0
        rewrite(patient / "rp.dcm", lambda data: data.__delattr__("FractionGroupSequence"))
        assert prepare(patient, tmp_path / "broken") == 2
    printed = capfd.readouterr()
    for_import = {"RTPLAN.dcm", "RTDOSE.dcm"}  # of a patient's own folder: a planning system asks whose they are
    for path in (tmp_path / "direct").iterdir():
        if path.name in for_import:
            assert dcmread(path).PatientID == VALID["PatientID"]
            path.unlink()
    written = everything(cohort, out, tmp_path / "direct") + (printed.out + printed.err).encode()
    assert len(written) > 10_000
    told = [keyword for keyword, value in VALID.items() if len(value) > 1 and value.encode() in written]
    assert told == []


def test_invalid_values_are_neither_shown_nor_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    patient, out = write_named(tmp_path / "pat", {**VALID, **INVALID}), tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        options = ["--out", str(out), "--voxels", "300", *SIZE, "--show-identifiers"]
        assert main(["plan", str(patient), *options]) == 0
        assert prepare(patient, tmp_path / "cohort", "--show-identifiers") == 0
    printed = capfd.readouterr()
    written = everything(out, tmp_path / "cohort") + (printed.out + printed.err).encode()
    assert [value for value in INVALID.values() if value.encode() in written] == []
    for name in ("RTPLAN.dcm", "RTDOSE.dcm"):
        data = dcmread(out / name)
        assert (data.PatientBirthDate, data.PatientSex, data.StudyTime) == ("", "", "")
        assert (data.PatientName, data.PatientID) == (VALID["PatientName"], VALID["PatientID"])
    assert (tmp_path / "cohort" / VALID["PatientID"]).is_dir()
