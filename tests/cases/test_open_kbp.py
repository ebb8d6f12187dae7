from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from shared_data import OPEN_KBP

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.drawn_wishes import draw_wishes, name_seed
from lightning_vmat.cases.open_kbp import ORGANS, PRESCRIPTION_GY, patient_folders, read_open_kbp
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.objectives.wishes import drawn_names, known_wishes
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws

needs_patients = pytest.mark.skipif(
    not OPEN_KBP.is_dir(), reason=f"no OpenKBP patients at {OPEN_KBP} (VMAT_SHARED_DATA)"
)


def flat(y: int, x: int, z: int) -> int:
    return (y * 128 + x) * 128 + z


def write_sparse(path: Path, values: dict[int, float | None]) -> None:
    lines = [f"{index},{'' if value is None else value}" for index, value in values.items()]
    path.write_text("\n".join([",data", *lines]) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A box of water, a target at its left front top, and an organ of one voxel at its right back bottom."""
    patient = tmp_path / "pt_1"
    patient.mkdir()
    box = [flat(y, x, z) for y in range(50, 70) for x in range(40, 80) for z in range(60, 90)]
    target = [flat(y, x, z) for y in range(51, 56) for x in range(70, 76) for z in range(62, 68)]
    write_sparse(patient / "ct.csv", dict.fromkeys(box, 1000.0))
    write_sparse(patient / "possible_dose_mask.csv", dict.fromkeys(box))
    write_sparse(patient / "PTV70.csv", dict.fromkeys(target))
    write_sparse(patient / "SpinalCord.csv", {flat(69, 40, 89): None})
    write_sparse(patient / "dose.csv", dict.fromkeys(target, 71.5))
    (patient / "voxel_dimensions.csv").write_text("3.0\n4.0\n2.5\n")
    return patient


def centre_mm(case: Case, name: str) -> list[float]:
    values: list[float] = case.grid.centres_mm(case.structures[name].flatten().nonzero()[:, 0]).mean(dim=0).tolist()
    return values


def test_axes_become_lps(folder: Path) -> None:
    case, dose_gy = read_open_kbp(folder, "demo")
    assert case.grid.spacing_mm == (4.0, 3.0, 2.5)  # the file gives y, x, z
    assert case.grid.shape == (32, 22, 42)  # the box and one voxel of air around it
    target, cord = centre_mm(case, "PTV70"), centre_mm(case, "SpinalCord")
    assert target[0] > cord[0] and target[1] < cord[1] and target[2] > cord[2]  # left, front, top
    assert cord == pytest.approx([(40 - 63.5) * 4, (69 - 63.5) * 3, (63.5 - 89) * 2.5])
    assert torch.equal(dose_gy > 0, case.structures["PTV70"]) and float(dose_gy.max()) == 71.5
    assert bool(((case.hu == 0) | (case.hu == -1000)).all())
    assert case.prescription_gy == {"PTV70": 70.0}
    assert [arc.direction for arc in case.arcs] == ["clockwise", "counterclockwise"]


def replace_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number] = text
    path.write_text("\n".join(lines) + "\n")


def drop(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-3])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("PTV70.csv", drop, "no target, expected at least one of PTV70, PTV63, PTV56"),
        ("ct.csv", drop, r"ct\.csv: no such file"),
        ("dose.csv", cut, r"dose\.csv: not a readable CSV file \(its last line is cut off"),
        ("possible_dose_mask.csv", cut, r"possible_dose_mask\.csv: .* cut off"),
        ("ct.csv", lambda path: replace_line(path, 5, "12x,3"), r"ct\.csv: not a readable CSV.*12x"),
        ("ct.csv", lambda path: replace_line(path, 5, "1234"), r"ct\.csv: not a readable CSV"),
        ("ct.csv", lambda path: replace_line(path, 5, "806400,nan"), r"ct\.csv: CT of nan"),
        ("ct.csv", lambda path: replace_line(path, 5, "806400,9e9"), r"ct\.csv: CT of 0\.0 to 8999999488"),
        ("ct.csv", lambda path: replace_line(path, 5, "806400,-700"), r"ct\.csv: CT of -700"),
        (
            "ct.csv",
            lambda path: replace_line(path, 5, "9999999,1000"),
            r"ct\.csv: voxel indices .*, expected whole numbers from 0 to 2097151",
        ),
        ("dose.csv", lambda path: replace_line(path, 5, "806400,-2"), r"dose\.csv: NaN, infinite or negative"),
        ("PTV70.csv", lambda path: path.write_text(",data\n"), r"PTV70\.csv: no voxels"),
        (
            "PTV70.csv",
            lambda path: write_sparse(path, {7: None}),
            r"PTV70\.csv: 100% of the target lies outside the CT",
        ),
        ("voxel_dimensions.csv", lambda path: path.write_text("3\n-4\n2.5\n"), r"spacing \[3\.0, -4\.0, 2\.5\] mm"),
        ("voxel_dimensions.csv", lambda path: path.write_text("3\nnan\n2.5\n"), "expected three positive"),
        ("voxel_dimensions.csv", lambda path: path.write_text("3\n4\n"), "expected three positive"),
    ],
)
def test_bad_files_are_named_in_one_line(folder: Path, name: str, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(folder / name)
    with pytest.raises(ValueError, match=message) as error:
        read_open_kbp(folder, "demo")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test-pats: no patients"):
        patient_folders(tmp_path, "test")
    with pytest.raises(ValueError, match="split 'all'"):
        patient_folders(tmp_path, "all")


@needs_patients
def test_challenge_split_is_kept() -> None:
    counts = {split: len(patient_folders(OPEN_KBP, split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 24, "validation": 8, "test": 8}


@needs_patients
def test_real_patient_stands_upright_and_was_treated_well() -> None:
    case, dose_gy = read_open_kbp(OPEN_KBP / "test-pats/pt_242")
    assert case.prescription_gy == {name: PRESCRIPTION_GY[name] for name in ("PTV70", "PTV56")}
    assert centre_mm(case, "LeftParotid")[0] > 40 and centre_mm(case, "RightParotid")[0] < -30
    assert centre_mm(case, "SpinalCord")[1] > centre_mm(case, "Larynx")[1] + 20
    assert centre_mm(case, "Brainstem")[2] > centre_mm(case, "SpinalCord")[2]
    assert np.percentile(dose_gy[case.structures["PTV70"]].numpy(), 5) > 66.5
    assert float(dose_gy[~case.structures["Body"]].max()) < 1.0
    assert 20 < float(case.hu[case.structures["Brainstem"]].median()) < 60


@needs_patients
@pytest.mark.parametrize("name", ["pt_245", "pt_248"])
def test_field_covers_all_targets_from_everywhere(name: str) -> None:
    case, _ = read_open_kbp(OPEN_KBP / "test-pats" / name)
    points = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev, _ = project_to_bev(points, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    field = case.beamlets
    assert field.beamlet_start_mm < bev[..., 0].min() and bev[..., 0].max() < field.beamlet_stop_mm
    assert field.leaf_edges_mm[0] < bev[..., 1].min() and bev[..., 1].max() < field.leaf_edges_mm[-1]
    assert len(case.control_points) == 180


def test_wishes_are_drawn_from_the_name_for_the_organs_of_the_patient(folder: Path, tmp_path: Path) -> None:
    """A folder of training patients alone, as further archives bring them, is a cohort; a part of it draws the same."""
    source, other = tmp_path / "archive/train-pats", tmp_path / "other/train-pats"
    for number in range(28, 33):
        shutil.copytree(folder, source / f"pt_{number}")
    shutil.copytree(folder, other / "pt_31")
    for name in ("archive", "other"):
        arguments = ["prepare", "open-kbp", str(tmp_path / name), "--split", "train", "--size", "tiny"]
        assert main([*arguments, "--wishes", "--jobs", "1", "--out", str(tmp_path / f"{name}-cohort")]) == 0
    cohort = tmp_path / "archive-cohort"
    split = read_cohort(cohort).split
    assert split == {"train": [f"pt_{number}" for number in range(28, 33)], "validation": [], "test": []}
    drawn = {name: read_case(cohort / name).wishes for name in split["train"]}
    assert any(drawn.values()) and not all(drawn.values())
    assert len({str(wishes) for wishes in drawn.values() if wishes}) == sum(bool(wishes) for wishes in drawn.values())
    assert read_case(tmp_path / "other-cohort/pt_31").wishes == drawn["pt_31"]
    assert all(set(wishes) == {"SpinalCord", "Body", "homogeneity"} for wishes in drawn.values() if wishes)
    names = drawn_names(load_protocol("head_and_neck_70gy_35fx"))
    for name, wishes in drawn.items():
        whole = draw_wishes(name_seed(name), names=names)
        assert wishes == {organ: whole[organ] for organ in wishes} and bool(whole) == bool(wishes)
    manifest = yaml.safe_load((cohort / "manifest.yaml").read_text())
    assert manifest["wishes"] == {"share": 0.75, "factors": [0.25, 4.0], "names": list(names)}
    assert set(manifest["protocol_versions"]) == {"head_and_neck_70gy_35fx"}
    assert manifest["jaw_margin_mm"] is None
    jaws = ["--wishes", "--jaw_margin_mm", "6", "--jobs", "1"]
    assert main([*arguments, *jaws, "--out", str(tmp_path / "jaws")]) == 0
    still_open, closed = read_case(cohort / "pt_31"), read_case(tmp_path / "jaws/pt_31")
    assert closed.beamlets == with_jaws(still_open, 6.0).beamlets != still_open.beamlets
    assert closed.wishes == drawn["pt_31"]
    assert main([*arguments, *jaws, "--out", str(cohort)]) == 2
    assert main([*arguments, "--wishes", "0.5", "--out", str(cohort)]) == 2
    assert main([*arguments, "--wishes", "-1", "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_wishes_are_for_all_organs_of_the_protocol_and_for_no_target() -> None:
    names = drawn_names(load_protocol("head_and_neck_70gy_35fx"))
    assert set(names) == {*ORGANS, "Body", "homogeneity"} and len(names) == len(set(names))
    assert names[-2:] == ("Body", "homogeneity")
    prostate = load_protocol("prostate_60gy_20fx")
    assert set(drawn_names(prostate)) < set(known_wishes(prostate)) - set(prostate.prescription_gy)
