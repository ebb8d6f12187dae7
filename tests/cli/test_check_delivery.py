"""`vmat check delivery`: plans in every form, wrong pairs, exit status, many plans and a stop among them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lightning_vmat.benchmarks import delivery_checks as checking
from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.patient import open_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.plan_files import plan_metadata, read_dose, write_dose, write_plan
from lightning_vmat.cli import main
from lightning_vmat.export.delivered_dose import delivered_dose
from lightning_vmat.export.patient_folder import phantom_link, write_plan_and_dose
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case

COARSE = ["--step_deg", "2"]


def still_plan(case: Case) -> Plan:
    count, (rows, _) = len(case.control_points), case.beamlets.shape
    left = torch.full((count, rows), -30.0) + torch.arange(rows)
    return Plan(left, left + 60, 2 * case.control_points.sector_deg)


def moving_plan(case: Case) -> Plan:
    """Leaves that open and close in turn."""
    still = still_plan(case)
    turn = 9.0 * (torch.arange(len(still.mu)) % 2)[:, None]
    return Plan(still.left_mm + 20 - turn, still.right_mm - 20 + turn, still.mu)


def short(seed: int) -> Case:
    return make_phantom(seed, "tiny").with_settings(arcs=(Arc(20.0, 32.0, 4, "clockwise", 15.0),))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases: one whose leaves stand still, one whose leaves do not."""
    root = tmp_path_factory.mktemp("cohort")
    for seed, plan in ((0, still_plan), (1, moving_plan)):
        write_case(short(seed), root / f"phantom_{seed:04d}", plan=plan(short(seed)))
    split = {"train": ["phantom_0001"], "validation": [], "test": ["phantom_0000"]}
    (root / "split.yaml").write_text(yaml.safe_dump(split))
    return root


def results_of(cohort: Path, name: str, out: Path) -> Path:
    """Results with a dose that is the RTPLAN's in motion, as files of a planning: RTPLAN, RTDOSE, dose and plan."""
    case = read_case(cohort / name)
    plan = moving_plan(case)
    out.mkdir()
    write_plan_and_dose(out, case, plan, None, phantom_link(case))
    dose_gy = torch.zeros(case.grid.voxel_count)
    dose_gy[case.body_index] = delivered_dose(case, read_rtplan(out / "RTPLAN.dcm"))
    whole = dose_gy.reshape(case.grid.shape)
    write_plan_and_dose(out, case, plan, whole, phantom_link(case))
    shutil.copy(cohort / name / "plan.safetensors", out)
    write_dose(whole, case.grid, out / "dose.nii.gz")
    return out


@pytest.fixture(scope="module")
def results(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_of(cohort, "phantom_0001", tmp_path_factory.mktemp("results") / "phantom_0001")


def figures(path: Path) -> dict[str, dict[str, object]]:
    return dict(json.loads(path.read_text())["cases"])


def test_a_case_with_its_plan(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["check", "delivery", str(cohort / "phantom_0000"), "--json", str(tmp_path / "one.json"), *COARSE])
    row = figures(tmp_path / "one.json")["phantom_0000"]
    text = capsys.readouterr()
    assert (status == 0) == row["passed"] == (not row["failed"])
    assert abs(float(str(row["worst_target_gy"]))) < 0.1
    assert "gamma 1 %/1 mm" in text.out and "delivery: 2.4 s, 24.0 MU" in text.out


def test_results_of_a_planning_and_their_rtplan_pass(cohort: Path, results: Path, tmp_path: Path) -> None:
    case = str(cohort / "phantom_0001")
    rows = []
    for number, plan in enumerate((results, results / "RTPLAN.dcm")):
        out = tmp_path / f"{number}.json"
        assert main(["check", "delivery", str(plan), "--case", case, "--json", str(out), *COARSE]) == 0
        rows.append(figures(out)["phantom_0001"])
    assert [row["planned_dose"] for row in rows] == ["dose.nii.gz", "RTDOSE.dcm"]
    assert float(str(rows[0]["objective"])) == pytest.approx(float(str(rows[1]["objective"])), rel=1e-4)


def test_a_wrong_dose_is_found_and_named(
    cohort: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phantom_0001"
    shutil.copytree(results, out)
    case = read_case(cohort / "phantom_0001")
    write_dose(0.95 * read_dose(out / "dose.nii.gz", case.grid), case.grid, out / "dose.nii.gz")
    assert main(["check", "delivery", str(out), "--case", str(cohort / "phantom_0001"), *COARSE]) == 1
    error = capsys.readouterr().err
    assert error.startswith("vmat: out of tolerance: phantom_0001: ") and error.count("\n") == 1
    assert "PTV D2, delivered less planned, Gy" in error


def test_an_rtplan_without_its_dose_is_judged_by_the_planners_model(
    cohort: Path, results: Path, tmp_path: Path
) -> None:
    shutil.copy(results / "RTPLAN.dcm", tmp_path)
    main(["check", "delivery", str(tmp_path / "RTPLAN.dcm"), "--case", str(cohort / "phantom_0001"), "--json",
          str(tmp_path / "one.json"), *COARSE])  # fmt: skip
    assert figures(tmp_path / "one.json")["phantom_0001"]["planned_dose"] == "computed from the RTPLAN's sectors"


def test_many_plans_go_on_where_they_were_stopped(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["check", "delivery", str(cohort), "--json", str(tmp_path / "many.json"), *COARSE]
    opened: list[str] = []

    def stop_at_second(folder: Path, machine: str | None = None) -> object:
        opened.append(folder.name)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return open_case(folder, machine=machine)

    monkeypatch.setattr(checking, "open_case", stop_at_second)
    assert main(command) == 130
    status = main(command)
    assert opened == ["phantom_0000", "phantom_0001", "phantom_0001"]
    rows = figures(tmp_path / "many.json")
    assert list(rows) == ["phantom_0000", "phantom_0001"]
    assert status == int(any(row["failed"] for row in rows.values()))
    out = capsys.readouterr().out
    passed = sum(bool(row["passed"]) for row in rows.values())
    assert "| phantom_0001 |" in out and f"{passed} of 2 plans within all tolerances" in out
    assert not (tmp_path / "many.json.partial").exists()


def test_a_plan_is_checked_on_its_own_machine_and_arcs(cohort: Path, tmp_path: Path) -> None:
    """The figures are those of a case with this machine, these arcs and this isocentre."""
    rows: list[dict[str, object]] = []
    arcs = (Arc(40.0, 60.0, 5, "clockwise", 80.0),)
    x, y, z = short(1).isocentre_mm
    own = short(1).with_settings(machine_name="elekta_agility", arcs=arcs, isocentre_mm=(x + 8.0, y, z))
    write_case(own, tmp_path / "own", plan=moving_plan(own))
    write_plan(moving_plan(own), tmp_path / "plan.safetensors", plan_metadata(own, "conventional"))
    for plan, case in ((tmp_path / "own", tmp_path / "own"), (tmp_path / "plan.safetensors", cohort / "phantom_0001")):
        out = tmp_path / f"{len(rows)}.json"
        main(["check", "delivery", str(plan), "--case", str(case), "--json", str(out), *COARSE])
        rows.append(figures(out)["phantom_0001"])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("machine", "halcyon", "machine halcyon: expected one of elekta_agility"),
        ("machine", "elekta_mlci2", "leaf_edges_mm holds -45.0, expected leaf boundaries of machine elekta_mlci2"),
        ("arcs", [{"gantry_start_deg": "x"}], "arc: gantry_start_deg is 'x', expected a finite number"),
        ("isocentre_mm", [900.0, 0.0, 0.0], "isocentre (900.0, 0.0, 0.0) mm lies outside the CT"),
    ],
)
def test_a_plan_of_beams_that_the_case_cannot_have_is_refused(
    cohort: Path, tmp_path: Path, key: str, value: object, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case = short(1)
    write_plan(moving_plan(case), tmp_path / "plan.safetensors", {**plan_metadata(case, "conventional"), key: value})
    command = ["check", "delivery", str(tmp_path / "plan.safetensors"), "--case", str(cohort / "phantom_0001")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_one_split_and_results_apart_from_their_cases(cohort: Path, results: Path) -> None:
    case = cohort / "phantom_0001"
    assert checking.plans_and_cases(cohort, None, "train") == [(case, case)]
    assert checking.plans_and_cases(results.parent, cohort, None) == [(results, case)]


@pytest.mark.parametrize(
    ("plan", "case", "named"),
    [
        ("phantom_0000", "phantom_0001", "plan of case phantom_0000, expected one of case phantom_0001"),
        ("nothing", None, "nothing: no such file, folder or shipped cohort"),
        ("phantom_0000/structures", None, "structures: no subfolder with a plan.safetensors or RTPLAN.dcm"),
        ("phantom_0000/ct.nii.gz", "phantom_0000", "ct.nii.gz: not a readable plan"),
    ],
)
def test_wrong_pairs_are_refused(
    cohort: Path, plan: str, case: str | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [] if case is None else ["--case", str(cohort / case)]
    assert main(["check", "delivery", str(cohort / plan), *options]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("plan", "options", "named"),
    [
        ("phantom_0000", ["--split", "test"], "split test: expected with many plans only"),
        ("phantom_0000", ["--cases", "2"], "cases 2: expected with many plans only"),
        ("phantom_0000", ["--size", "tiny"], "size tiny: expected with a DICOM folder only, not with the case"),
        ("phantom_0000", ["--json", "FOLDER"], "a folder, expected a file to write"),
        ("", ["--protocol", "prostate_78gy_39fx"], "expected with a DICOM folder only, not with many plans"),
        ("", ["--json", "FOLDER"], "a folder, expected a file to write"),
    ],
)
def test_options_that_do_not_apply_are_refused_before_the_work(
    cohort: Path, tmp_path: Path, plan: str, options: list[str], named: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(checking, "delivery_check", lambda *_: pytest.fail("the dose is computed"))
    words = [str(tmp_path) if word == "FOLDER" else word for word in options]
    assert main(["check", "delivery", str(cohort / plan), *words]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_rtplan_of_another_case_is_refused(
    cohort: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "delivery", str(results / "RTPLAN.dcm"), "--case", str(cohort / "phantom_0000")]) == 2
    assert "isocentre" in capsys.readouterr().err
    assert main(["check", "delivery", str(results / "RTPLAN.dcm")]) == 2
    assert "expected --case" in capsys.readouterr().err
    other = read_case(cohort / "phantom_0001").with_settings(arcs=(Arc(20.0, 35.0, 5, "clockwise", 15.0),))
    write_case(other, tmp_path / "other")
    assert main(["check", "delivery", str(results), "--case", str(tmp_path / "other")]) == 2
    assert "expected (5, 8) as case phantom_0001 has" in capsys.readouterr().err
