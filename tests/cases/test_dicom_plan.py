"""RTPLANs of other systems, and files that are not what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lightning_vmat.cases.dicom.ct import read_ct
from lightning_vmat.cases.dicom.files import DicomFile, find_files
from lightning_vmat.cases.dicom.patient import read_patient
from lightning_vmat.cases.dicom.patient_folders import patient_folders, patient_name
from lightning_vmat.cases.dicom.roi_names import load_roi_names
from lightning_vmat.cases.dicom.rtdose import read_rtdose
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.rtstruct import read_structure_set
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.export.patient_folder import plan_dose, write_patient
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.volume import VolumeGrid

PROTOCOL = "prostate_60gy_20fx"
TEST_FILES = Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny phantom as DICOM with a plan."""
    case = make_phantom(0, "tiny")
    left = torch.full((12, 8), -25.0) + 2 * torch.sin(torch.arange(96.0).reshape(12, 8))
    plan = Plan(left, left + 50, torch.linspace(25.0, 60.0, 12))
    folder = tmp_path_factory.mktemp("patients") / "phantom"
    write_patient(folder, case, plan, plan_dose(case, plan))
    return folder


def changed(folder: Path, tmp_path: Path, change: Callable[[Dataset], object]) -> Path:
    data = pydicom.dcmread(folder / "RTPLAN.dcm")
    change(data)
    path = tmp_path / "RTPLAN.dcm"
    data.save_as(path)
    return path


def as_clinical(data: Dataset) -> None:
    """A control point at each boundary of sectors only, what does not change left out, jaws that follow the leaves."""
    data.Manufacturer = data.ManufacturerModelName = "Some planning system"
    for beam in data.BeamSequence:
        beam.ControlPointSequence = Sequence(list(beam.ControlPointSequence)[::2])
        beam.NumberOfControlPoints = len(beam.ControlPointSequence)
        for index, point in enumerate(beam.ControlPointSequence):
            point.ControlPointIndex = index
            jaw = Dataset()
            jaw.RTBeamLimitingDeviceType, jaw.LeafJawPositions = "ASYMX", [-30 + index, 30]
            devices = [d for d in point.BeamLimitingDevicePositionSequence if d.RTBeamLimitingDeviceType != "ASYMX"]
            point.BeamLimitingDevicePositionSequence = Sequence([jaw, *devices])


def test_a_clinical_arc_has_a_sector_between_control_points(folder: Path, tmp_path: Path) -> None:
    own, clinical = read_rtplan(folder / "RTPLAN.dcm"), read_rtplan(changed(folder, tmp_path, as_clinical))
    assert clinical.arcs == own.arcs
    np.testing.assert_allclose(clinical.motions[0].mu, own.motions[0].mu, atol=1e-4)
    points = pydicom.dcmread(tmp_path / "RTPLAN.dcm").BeamSequence[0].ControlPointSequence
    tips = np.array([point.BeamLimitingDevicePositionSequence[-1].LeafJawPositions for point in points], float)
    np.testing.assert_allclose(clinical.motions[0].left_mm, (tips[1:] + tips[:-1])[:, :60] / 2, atol=1e-6)
    grid = clinical.beamlet_grid(make_phantom(0, "tiny").machine, 5.0)
    assert (grid.beamlet_start_mm, grid.shape) == (-29.5, (24, 12))
    plan = clinical.on_rows(grid)
    assert (plan.left_mm[:, 0] >= torch.linspace(-29.5, -18.5, 12) - 1e-4).all()
    assert float(plan.mu.sum()) == pytest.approx(float(own.motions[0].mu.sum()), abs=1e-4)


def test_uneven_control_points_keep_their_monitor_units(folder: Path, tmp_path: Path) -> None:
    def thin_out(data: Dataset) -> None:
        points = list(data.BeamSequence[0].ControlPointSequence)
        del points[1]
        for index, point in enumerate(points):
            point.ControlPointIndex = index
        data.BeamSequence[0].ControlPointSequence = Sequence(points)
        data.BeamSequence[0].NumberOfControlPoints = len(points)
        data.ManufacturerModelName = "Some planning system"

    plan, own = read_rtplan(changed(folder, tmp_path, thin_out)), read_rtplan(folder / "RTPLAN.dcm")
    assert plan.arcs[0].control_points == 24
    assert plan.motions[0].mu.sum() == pytest.approx(own.motions[0].mu.sum(), abs=1e-4)
    np.testing.assert_allclose(plan.motions[0].mu.reshape(12, 2).sum(axis=1), own.motions[0].mu, atol=1e-4)


def test_the_plan_of_a_patient_delivers_its_dose(folder: Path) -> None:
    patient = read_patient(folder, PROTOCOL, load_roi_names(), size="tiny")
    case, plan = patient.case, patient.plan
    assert plan is not None and patient.dose_gy is not None
    index = case.body_index
    dose_gy = plan_dose(case, plan).flatten()[index]
    difference = (dose_gy - patient.dose_gy.flatten()[index]).abs().max()
    assert float(difference) < 0.03 * float(dose_gy.max())  # beamlets one leaf pair high here, three there


def set_value(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda data: setattr(data, keyword, value)


def in_beam(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda data: setattr(data.BeamSequence[0], keyword, value)


def in_point(index: int, keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda data: setattr(data.BeamSequence[0].ControlPointSequence[index], keyword, value)


def drop_leaves(data: Dataset) -> None:
    item = data.BeamSequence[0].ControlPointSequence[3].BeamLimitingDevicePositionSequence[0]
    item.LeafJawPositions = list(item.LeafJawPositions)[:-1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_value("Modality", "RTDOSE"), "expected RTPLAN"),
        (set_value("FractionGroupSequence", Sequence()), "0 fraction groups"),
        (set_value("BeamSequence", Sequence()), "fraction group of beams"),
        (in_beam("RadiationType", "ELECTRON"), "RadiationType ELECTRON, expected PHOTON"),
        (in_point(0, "GantryRotationDirection", "NONE"), "turns by 15.0 degrees without a direction"),
        (in_point(2, "CumulativeMetersetWeight", "0.9"), "ascending from 0 to"),
        (
            in_point(5, "BeamLimitingDeviceAngle", "45"),
            r"control point 5: BeamLimitingDeviceAngle 45 after \d+, expected a constant",
        ),
        (in_point(3, "GantryAngle", "100"), "expected 1 to 360"),
        (in_point(0, "IsocenterPosition", ["1", "2"]), "expected three coordinates"),
        (in_beam("FinalCumulativeMetersetWeight", None), "not readable as DICOM"),
        (drop_leaves, "control point 3, expected 120"),
    ],
)
def test_plans_of_other_kinds_are_named(
    folder: Path, tmp_path: Path, change: Callable[[Dataset], object], named: str
) -> None:
    with pytest.raises(ValueError, match=named) as error:
        read_rtplan(changed(folder, tmp_path, change))
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


def test_another_prescription_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="60 Gy in 20 fractions, expected 78 Gy in 39"):
        read_patient(folder, "prostate_78gy_39fx", load_roi_names(), size="tiny")


@pytest.mark.parametrize("name", ["RTPLAN.dcm", "RTDOSE.dcm"])
def test_another_frame_of_reference_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    data = pydicom.dcmread(tmp_path / name)
    data.FrameOfReferenceUID = "1.2.3.9"
    data.save_as(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: other frame of reference"):
        read_patient(tmp_path, PROTOCOL, load_roi_names(), size="tiny")


def test_names_tell_nothing_unless_asked(folder: Path) -> None:
    name = patient_name(folder)
    assert name == patient_name(folder) and name.startswith("patient_") and "phantom" not in name
    assert patient_name(folder, show_identifiers=True) == "phantom_0000"
    assert patient_folders(folder.parent) == [folder]
    assert patient_folders(folder) == [folder]


READERS: list[Callable[[Path], object]] = [
    read_rtplan,
    read_structure_set,
    lambda path: read_rtdose(path, VolumeGrid((5, 6, 7), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0))),
    lambda path: find_files(path.parent),
    lambda path: read_ct([DicomFile(path, "CT", name, "1.2", "1.3", False) for name in "ab"]),
]


def outcome(reader: Callable[[Path], object], path: Path) -> str:
    """What a reader says; anything but a result or one line that names the file ends the test."""
    try:
        reader(path)
    except ValueError as error:
        text = str(error)
        assert text.startswith(str(path)) and "\n" not in text and len(text) < len(str(path)) + 300
        assert "phantom_0000" not in text.removeprefix(str(path))  # the patient's name
        return text
    return ""


def test_strange_files_give_one_line() -> None:
    files = [path for path in sorted(TEST_FILES.glob("*")) if path.is_file() and path.stat().st_size < 200_000]
    assert len(files) > 50
    refused = sum(outcome(reader, path) != "" for path in files for reader in (*READERS[:2], READERS[-1]))
    assert refused > 2 * len(files)
    outcome(READERS[2], TEST_FILES / "rtdose.dcm")


@pytest.mark.parametrize("name", ["RTPLAN.dcm", "RTSTRUCT.dcm", "RTDOSE.dcm", "CT_0003.dcm"])
def test_broken_files_give_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    raw = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for _ in range(15):
        path.write_bytes(raw[: rng.integers(0, len(raw))])
        for reader in READERS:
            outcome(reader, path)
        noisy = bytearray(raw)
        for place in rng.integers(0, min(len(raw), 4000), size=8):
            noisy[place] = rng.integers(0, 256)
        path.write_bytes(bytes(noisy))
        for reader in READERS:
            outcome(reader, path)


@pytest.mark.parametrize("name", ["RTPLAN.dcm", "RTSTRUCT.dcm", "RTDOSE.dcm", "CT_0003.dcm"])
def test_a_patient_with_a_truncated_file_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) * 2 // 3])
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        read_patient(tmp_path, PROTOCOL, load_roi_names(), size="tiny")
