"""The whole experiment through the command line, at the smallest size: cohort, three recipes, held-out test, plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.plan_files import read_dose, read_plan
from lightning_vmat.cli import main
from lightning_vmat.planning.body_dose import BodyDose

CONFIGS = Path(__file__).parents[2] / "configs"
STRUCTURE_FIGURES = {"d95_gy", "d98_gy", "d2_gy", "mean_gy", "max_gy"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("experiment") / "cohort"
    assert (
        main(["prepare", "phantom", "--out", str(root), "--count", "4", "--size", "tiny", "--plan=true", "--jobs=1"])
        == 0
    )
    return root


def fit(recipe: str, cohort: Path, *options: str) -> Path:
    """Fit a demo recipe for an epoch or two; its run directory."""
    run = cohort.parent / recipe
    small = ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false"]
    configs = [f"--config={CONFIGS / place / f'{recipe}.yaml'}" for place in ("", "demo")]
    arguments = ["fit", *configs, "--data.cohort", str(cohort), *small, *options]
    assert main([*arguments, "--trainer.default_root_dir", str(run), "--data.voxels=500"]) == 0
    return run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_recipes_end_in_a_deliverable_plan(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = fit("teacher", cohort)
    generator = fit("distillation", cohort, "--model.init_args.teacher", str(teacher))
    learned = fit("learned_optimizer", cohort, "--model.init_args.generator", str(generator))
    checkpoint = str(learned / "checkpoints" / "last.ckpt")
    assert main(["test", "--config", str(learned / "config.yaml"), "--ckpt_path", checkpoint]) == 0
    table = json.loads((learned / "comparison.json").read_text())
    assert table["start"] == str(generator)
    out = cohort.parent / "learned_plan"
    planned = ["plan", str(cohort / "phantom_0003"), "--planner", "learned", "--run", str(learned), "--voxels", "500"]
    assert main([*planned, "--out", str(out)]) == 0
    measured = json.loads((out / "metrics.json").read_text())
    assert measured["machine_violations"] == 0
    assert measured["dose_evaluations"] > 0
    compared = cohort.parent / "benchmark.json"
    planners = f"[fluence,generator={generator},learned={learned}]"
    arguments = ["benchmark", "planners", "--cohort", str(cohort), "--planners", planners, "--voxels", "500"]
    assert main([*arguments, "--json", str(compared)]) == 0
    figures = json.loads(compared.read_text())
    assert set(figures["quartiles"]) == {"fluence", "generator", "learned"}
    assert figures["quartiles"]["learned"]["machine_violations"][1] == 0
    assert "1 cases (test)" in capsys.readouterr().out


def test_plan_writes_all_that_it_promises(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = cohort / "phantom_0003", tmp_path / "plan"
    arguments = ["plan", str(folder), "--out", str(out), "--voxels", "500"]
    assert main(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "dose.nii.gz",
        "metrics.json",
        "plan.safetensors",
        "report.html",
    ]
    assert "machine violations: 0" in capsys.readouterr().out
    measured = json.loads((out / "metrics.json").read_text())
    assert set(measured["structures"]["PTV"]) >= STRUCTURE_FIGURES
    assert measured["skipped_structures"] == [name for name in ("Bowel",) if name not in read_case(folder).structures]
    assert measured["machine_violations"] == 0 and measured["goals"] and measured["seconds"]["total"] > 0
    case = read_case(folder)
    plan, metadata = read_plan(out / "plan.safetensors")
    assert metadata["planner"] == "reference"
    jawed = case.with_settings(beamlets=replace(case.beamlets, jaws_mm=tuple(metadata["jaws_mm"])))
    again_gy = BodyDose(jawed).of_plan(plan)
    written_gy = read_dose(out / "dose.nii.gz", case.grid).flatten()[case.body_index]
    torch.testing.assert_close(written_gy, again_gy, atol=0.01, rtol=0)
    before = (out / "metrics.json").read_text()
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert (out / "metrics.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["nowhere"], "nowhere"),
        (["CASE", "--planner", "learned", "--run", "no_run"], "no_run"),
        (["CASE", "--run", "some_run"], "run some_run: planner reference does not take one"),
        (["CASE", "--planner", "magic"], "magic"),
        (["CASE", "--voxels", "0"], "voxels 0"),
    ],
    ids=["no case", "no such run", "run for the reference", "unknown planner", "no voxels"],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    options: list[str], named: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [option.replace("CASE", str(cohort / "phantom_0003")) for option in options]
    assert main(["plan", *arguments, "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("vmat: error: ") and named in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_benchmark_names_what_is_wrong(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "planners", "--cohort", str(cohort), "--json", str(tmp_path / "figures.json")]
    assert main([*arguments, "--planners", "[magic]"]) == 2
    assert "magic" in capsys.readouterr().err
    assert not (tmp_path / "figures.json").exists()
