"""`vmat plan --wish`: wishes reach the planner, the judging, the files and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.plan_files import read_dose, read_plan
from lightning_vmat.cli import main
from lightning_vmat.commands.arguments import spelled_out
from lightning_vmat.commands.plan import plan
from lightning_vmat.planning.evaluation import body_objective_of_dose


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wishes") / "case"
    write_case(make_phantom(3, "tiny").with_settings(wishes={"Bladder": 2.0}), folder)
    return folder


def planned(case: Path, out: Path, *options: str, planner: str = "fluence") -> dict[str, Any]:
    arguments = ["plan", str(case), "--out", str(out), "--planner", planner, "--voxels", "1000", *options]
    assert main(arguments) == 0
    measured: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return measured


def test_a_wish_is_followed_and_written_down(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = planned(case, tmp_path / "plain")
    wished = planned(case, tmp_path / "wished", "--wish", "Rectum=16", "--wish=homogeneity=0.25")
    assert plain["wishes"] == {"Bladder": 2.0}
    assert wished["wishes"] == {"Bladder": 2.0, "Rectum": 16.0, "homogeneity": 0.25}
    assert "wishes: Bladder x 2, Rectum x 16, homogeneity x 0.25" in capsys.readouterr().out
    assert wished["structures"]["Rectum"]["mean_gy"] < 0.9 * plain["structures"]["Rectum"]["mean_gy"]
    report = (tmp_path / "wished/report.html").read_text()
    times = "\N{MULTIPLICATION SIGN}"
    assert f"Bladder {times} 2, Rectum {times} 16, homogeneity {times} 0.25" in report
    judged = read_case(case).with_settings(wishes=wished["wishes"])
    dose_gy = read_dose(tmp_path / "wished/dose.nii.gz", judged.grid).flatten()[judged.body_index]
    assert wished["objective"] == pytest.approx(body_objective_of_dose(judged, dose_gy), rel=1e-3)


def test_the_plan_says_which_wishes_it_follows(case: Path, tmp_path: Path) -> None:
    planned(case, tmp_path / "plan", "--wish", "{Bladder: 0.5}", planner="generator+lbfgs")
    assert read_plan(tmp_path / "plan/plan.safetensors")[1]["wishes"] == {"Bladder": 0.5}


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("Rektum=4", "wish for Rektum: protocol prostate_60gy_20fx has objectives for"),
        ("Rectum=0", "wish Rectum is 0.0, expected a factor from 0.0625 to 16"),
        ("Rectum=much", "Got value: much"),
        ("Rectum", "--wish Rectum: expected NAME=NUMBER"),
    ],
)
def test_a_wrong_wish_is_one_line(
    case: Path, tmp_path: Path, wish: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(case), "--out", str(tmp_path / "out"), "--wish", wish]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_spelling_of_wishes() -> None:
    written = ["CASE", "--wish", "Rectum=4", "--wish=Left-Lung=2", "--jaw-margin-mm=8", "--wish", "{Body: 2}"]
    meant = ["CASE", "--wish.Rectum=4", "--wish.Left-Lung=2", "--jaw_margin_mm=8", "--wish", "{Body: 2}"]
    assert spelled_out(written, plan) == meant
