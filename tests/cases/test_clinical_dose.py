"""The dose beside a patient is that of its plan, where it says it is, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydicom.dataset import Dataset
from small_patient import arc, dose_at, rewrite, write_dose, write_plan, write_small_patient

from lightning_vmat.cases.dicom.patient import DicomPatient, read_patient
from lightning_vmat.cases.dicom.roi_names import load_roi_names

ANGLES_DEG = range(181, 542, 30)


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    folder = write_small_patient(tmp_path / "pat")
    write_plan(folder, [arc(1, ANGLES_DEG), arc(2, list(ANGLES_DEG)[::-1], "CC")])
    return folder


def read(folder: Path, use_plan: bool = True) -> DicomPatient:
    return read_patient(folder, "prostate_60gy_20fx", load_roi_names(), size="tiny", use_plan=use_plan)


def check_dose(patient: DicomPatient) -> None:
    """The dose grows towards the head as `write_dose` says."""
    grid = patient.case.grid
    heights = grid.centres_mm(torch.arange(grid.voxel_count))[:, 2].reshape(grid.shape)
    inside = patient.case.structures["Body"]
    expected = torch.tensor([dose_at(float(height)) for height in heights[inside]])
    assert patient.dose_gy is not None
    torch.testing.assert_close(patient.dose_gy[inside], expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("to_the_feet", [False, True])
@pytest.mark.parametrize("coordinates", [False, True])
def test_frames_are_where_dicom_says(patient: Path, to_the_feet: bool, coordinates: bool) -> None:
    write_dose(patient, to_the_feet=to_the_feet, coordinates=coordinates)
    check_dose(read(patient))


@pytest.mark.parametrize("use_plan", [False, True])
def test_the_doses_of_the_beams_add_up(patient: Path, use_plan: bool) -> None:
    write_dose(patient, beam=1, name="rd1.dcm", scale=0.75)
    write_dose(patient, beam=2, name="rd2.dcm", scale=0.25)
    check_dose(read(patient, use_plan))
    write_dose(patient)  # the whole plan's dose is not added to them
    check_dose(read(patient, use_plan))


def test_the_dose_of_another_plan_does_not_count_beside_the_plans_own(patient: Path) -> None:
    write_dose(patient)
    write_dose(patient, name="other.dcm", plan_uid="1.2.8.8", scale=0.5)
    check_dose(read(patient))


def test_without_a_plan_in_the_folder_the_only_dose_counts(patient: Path) -> None:
    (patient / "rp.dcm").unlink()
    write_dose(patient)
    check_dose(read(patient))


def set_value(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda data: setattr(data, keyword, value)


def far_away(data: Dataset) -> None:
    data.ImagePositionPatient = [1000, 1000, 1000]


def beside_the_target(data: Dataset) -> None:
    data.ImagePositionPatient = [40, -80, -33]


def uneven(data: Dataset) -> None:
    data.GridFrameOffsetVector = [0, 6, 12, 18, 24, 31, 37, 43, 49, 55, 61, 67]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_value("DoseType", "ERROR"), "ERROR dose in GY, expected a PHYSICAL one"),
        (set_value("DoseType", "EFFECTIVE"), "EFFECTIVE dose in GY"),
        (set_value("DoseUnits", "RELATIVE"), "dose in RELATIVE"),
        (set_value("DoseSummationType", "FRACTION"), "dose summed over FRACTION, expected PLAN or BEAM"),
        (set_value("DoseSummationType", "MULTI_PLAN"), "dose summed over MULTI_PLAN"),
        (set_value("DoseSummationType", None), "dose summed over empty"),
        (lambda data: setattr(data.ReferencedRTPlanSequence[0], "ReferencedSOPInstanceUID", "1.2.8"), "another plan"),
        (far_away, "no dose in Body"),
        (beside_the_target, "no dose in PTV"),
        (uneven, "expected even spacing"),
        (set_value("GridFrameOffsetVector", [5 + 6 * k for k in range(12)]), "frame offsets begin with 5 mm"),
        (set_value("NumberOfFrames", 6), "rd.dcm"),
    ],
)
def test_doses_of_other_kinds_are_refused(patient: Path, change: Callable[[Dataset], object], named: str) -> None:
    path = write_dose(patient, change=change)
    with pytest.raises(ValueError) as error:
        read(patient)
    assert named in str(error.value) and str(error.value).startswith(f"{path}: ")


def test_two_doses_of_the_plan_are_both_named(patient: Path) -> None:
    for name in ("a", "b"):
        (patient / name).mkdir()
        write_dose(patient, name=f"{name}/rd.dcm")
    with pytest.raises(ValueError, match=r"a/rd\.dcm and .*b/rd\.dcm: 2 doses of a plan"):
        read(patient)


def test_a_copy_of_the_dose_counts_once(patient: Path) -> None:
    path = write_dose(patient)
    (patient / "copy.dcm").write_bytes(path.read_bytes())
    check_dose(read(patient))


@pytest.mark.parametrize("beams", [[1], [1, 1], [1, 2, 2], [1, 3]])
def test_doses_of_some_beams_are_refused(patient: Path, beams: list[int]) -> None:
    for index, beam in enumerate(beams):
        write_dose(patient, beam=beam, name=f"rd{index}.dcm")
    with pytest.raises(ValueError, match=r"doses of the beams .*, expected one for each of \[1, 2\] of rp.dcm"):
        read(patient)


def test_doses_of_beams_need_their_plan(patient: Path) -> None:
    write_dose(patient, beam=1)
    (patient / "rp.dcm").unlink()
    with pytest.raises(ValueError, match="dose of a beam, expected the RTPLAN"):
        read(patient)


def test_a_dose_of_two_plans_is_refused(patient: Path) -> None:
    def add(data: Dataset) -> None:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.5", "1.2.8.8"
        data.ReferencedRTPlanSequence.append(item)

    rewrite(write_dose(patient), add)
    with pytest.raises(ValueError, match="dose of 2 plans, expected one"):
        read(patient)
