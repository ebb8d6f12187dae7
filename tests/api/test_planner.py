"""One `planner()` for Python and the command line: the same plans, and no name that means something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_vmat as vmat
from lightning_vmat.cli import main
from lightning_vmat.export.patient_folder import phantom_link, write_plan_and_dose
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.planning.evaluation import evaluate_plan

VOXELS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case whose jaws leave part of its field closed."""
    folder = tmp_path_factory.mktemp("api") / "case"
    case = vmat.phantom(3, size="tiny")
    wide = vmat.BeamletGrid(tuple(float(y) for y in range(-100, 101, 10)), -80.0, 10.0, 16)
    vmat.write_case(case.with_settings(beamlets=wide, wishes={"Bladder": 2.0}), folder)
    return folder


def by_command(case: Path, out: Path, *options: str) -> tuple[vmat.Plan, dict[str, Any]]:
    """The plan of `vmat plan`, and its figures."""
    assert main(["plan", str(case), "--out", str(out), "--voxels", str(VOXELS), *options]) == 0
    return vmat.read_plan(out / "plan.safetensors")[0], json.loads((out / "metrics.json").read_text())


def assert_same(one: vmat.Plan | None, other: vmat.Plan) -> None:
    """The same to the bit."""
    assert one is not None
    for name in ("left_mm", "right_mm", "mu"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("name", ["conventional@6", "generator+lbfgs"])
def test_python_and_command_line_make_the_same_plan(folder: Path, tmp_path: Path, name: str) -> None:
    plan, figures = by_command(folder, tmp_path / "out", "--planner", name, "--wish", "Rectum=4")
    case = vmat.read_case(folder)
    result = vmat.planner(name, voxels=VOXELS, wishes={"Rectum": 4}).plan(case)
    assert_same(result.plan, plan)
    judged = vmat.evaluate_plan(case, result)
    assert judged.objective == figures["objective"]
    assert (result.planner, figures["planner"]) == (name, name)
    assert result.case is not None and result.case.wishes == figures["wishes"] == {"Bladder": 2.0, "Rectum": 4.0}
    assert list(result.case.beamlets.field_mm) == figures["jaws_mm"] != list(case.beamlets.field_mm)


def test_a_plan_is_judged_with_the_jaws_and_wishes_of_its_planner(folder: Path) -> None:
    case = vmat.read_case(folder)
    result = vmat.planner("fluence", voxels=VOXELS, wishes={"Rectum": 16}).plan(case)
    assert result.case is not None
    expected = evaluate_plan(result.case, vmat.PlanResult(result.fluence_mu, None, vmat.Trace()))
    assert vmat.evaluate_plan(case, result).objective == expected.objective
    as_given = evaluate_plan(case, vmat.PlanResult(result.fluence_mu, None, vmat.Trace()))
    assert as_given.objective != expected.objective
    with pytest.raises(ValueError, match="plan of case phantom_0003: expected one of case phantom_0004"):
        vmat.evaluate_plan(vmat.phantom(4, size="tiny"), result)


def test_a_plan_can_be_judged_on_another_anatomy_of_its_case(folder: Path) -> None:
    """What changes is the case that is given, not the jaws."""
    case = vmat.read_case(folder)
    result = vmat.planner("fluence", voxels=VOXELS).plan(case)
    assert result.case is not None
    denser = case.with_settings(hu=(case.hu + 100).clamp(max=1000))
    expected = evaluate_plan(with_jaws(denser, 8.0), vmat.PlanResult(result.fluence_mu, None, vmat.Trace()))
    assert vmat.evaluate_plan(denser, result).objective == expected.objective


def test_jaws_of_the_case_stay_where_none_are_asked_for(folder: Path) -> None:
    case = vmat.read_case(folder)
    result = vmat.planner("fluence", voxels=VOXELS, jaw_margin_mm=None).plan(case)
    assert result.case is case


def test_the_budget_in_a_name_is_that_beside_it(folder: Path) -> None:
    case = vmat.read_case(folder)
    named, beside = (
        vmat.planner(name, voxels=VOXELS, evaluations=evaluations).plan(case)
        for name, evaluations in (("conventional@5", None), ("conventional", 5))
    )
    assert named.plan is not None and beside.plan is not None
    assert_same(named.plan, beside.plan)
    assert named.trace.dose_evaluations == 5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("generator", {"start": "RTPLAN.dcm"}, r"^start RTPLAN.dcm: planner generator does not take one"),
        ("conventional", {"start": "RTPLAN.dcm"}, r"^start RTPLAN.dcm: planner conventional does not take one"),
        (
            "teacher",
            {"run": "prostate_wished/regression"},
            r"holds a Regression, expected a Teacher for planner teacher",
        ),
        ("learned", {"run": "prostate_wished/generator"}, r"holds a Distillation, expected a LearnedOptimization"),
        ("fluence+learned", {"run": "prostate_wished/teacher"}, r"holds a Teacher, expected a LearnedOptimization"),
        ("fluence+adam", {"run": "prostate_wished/learned"}, r"^run prostate_wished/learned: planner fluence\+adam"),
        ("reference", {"run": "prostate_wished/learned"}, r"^run prostate_wished/learned: planner reference does not"),
        ("reference", {"evaluations": 5}, r"^evaluations 5: planner reference does not take one"),
        ("reference+adam", {}, r"^optimizer adam: planner reference\+adam does not take one"),
        ("fluence+", {}, r"expected an optimizer after \+$"),
        ("fluence+newton", {}, r"^optimizer 'newton': expected one of lbfgs, surrogate, adam, accelerated"),
        ("conventional@many", {}, r"expected a whole number of dose evaluations after @$"),
        ("conventional@5", {"evaluations": 5}, r"expected evaluations in the name or as an option, not both$"),
        ("conventional@2", {}, r"evaluations"),
        ("recipe", {}, r"^planner recipe: expected a run$"),
        ("referense", {}, r"^planner 'referense': expected one of reference, conventional, fluence"),
        ("no_such_package.Planner", {}, r"^planner no_such_package.Planner: cannot be imported"),
        ("conventional", {"voxels": 0}, r"^voxels 0: expected at least 1$"),
        ("conventional", {"gantry_slowdown": 0.5}, r"gantry_slowdown 0.5, expected 1 to 10$"),
        ("conventional", {"jaw_margin_mm": 1.0}, r"^jaw margin 1.0 mm: expected at least 5$"),
    ],
)
def test_what_does_not_fit_a_planner_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vmat.planner(name, **settings)


@pytest.mark.parametrize(
    "options",
    [
        ["--planner", "generator", "--start", "RTPLAN.dcm"],
        ["--planner", "teacher", "--run", "prostate_wished/regression"],
    ],
)
def test_the_command_refuses_the_same(
    folder: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(folder), "--out", str(tmp_path / "out"), *options]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("vmat: error: ") and options[1] in line
    assert not (tmp_path / "out").exists()


def test_any_recipe_plans_as_the_planner_that_is_named_after_it(folder: Path) -> None:
    case = vmat.read_case(folder)
    settings = {"run": "prostate_wished/regression", "voxels": VOXELS, "evaluations": 5}
    named, any_recipe = (vmat.planner(name, **settings).plan(case) for name in ("regression", "recipe"))  # type: ignore[arg-type]
    assert any_recipe.plan is not None
    assert_same(named.plan, any_recipe.plan)


def test_a_wish_that_no_objective_knows_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="case phantom_0003: wish for Rektum"):
        vmat.planner("conventional", wishes={"Rektum": 2}).plan(vmat.read_case(folder))


def test_a_start_is_the_same_in_python(tmp_path: Path) -> None:
    """An RTPLAN that is read with the patient and then polished; or its fluence optimised."""
    prepare = ["prepare", "phantom", "--as-dicom", "--count", "1", "--size", "tiny", "--out", str(tmp_path / "dicom")]
    assert main(prepare) == 0
    patient = tmp_path / "dicom" / "phantom_0000"
    by_command(patient, tmp_path / "first", "--planner", "conventional", "--size", "tiny")
    rtplan = tmp_path / "first" / "RTPLAN.dcm"
    options = ["--size", "tiny", "--start", str(rtplan)]
    plan, figures = by_command(patient, tmp_path / "polished", "--planner", "reference", *options)
    read = vmat.read_dicom_patient(patient, size="tiny", start=rtplan)
    result = vmat.planner("reference", start=read.plan, voxels=VOXELS).plan(read.case)
    assert_same(result.plan, plan)
    assert vmat.evaluate_plan(read.case, result).objective == figures["objective"]
    started = vmat.planner("fluence+adam", start=read.plan, voxels=VOXELS).plan(read.case)
    opened = vmat.planner("fluence+adam", voxels=VOXELS).plan(read.case)
    assert started.trace.points[0].objective < opened.trace.points[0].objective


def test_an_rtplan_fits_the_case_that_it_was_planned_on(tmp_path: Path) -> None:
    """By its path: read onto the rows of the case, whose jaws become the plan's."""
    case = vmat.phantom(0, size="tiny")
    write_case_with_plan(case, tmp_path)
    results = [vmat.planner("reference", start=tmp_path / "RTPLAN.dcm", voxels=VOXELS).plan(case) for _ in range(2)]
    assert results[0].plan is not None
    assert_same(results[1].plan, results[0].plan)
    assert results[0].trace.dose_evaluations == 61 and results[0].case is not None
    assert results[0].case.beamlets.jaws_mm is not None
    moved = case.with_settings(isocentre_mm=(0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"RTPLAN\.dcm: isocentre"):
        vmat.planner("reference", start=tmp_path / "RTPLAN.dcm").plan(moved)


def write_case_with_plan(case: vmat.Case, folder: Path) -> None:
    """A quick plan of a case as an RTPLAN."""
    result = vmat.planner("conventional@5", voxels=VOXELS).plan(case)
    assert result.plan is not None and result.case is not None
    dose_gy = vmat.evaluate_plan(case, result).dose_gy
    write_plan_and_dose(folder, result.case, result.plan, dose_gy, phantom_link(case))
