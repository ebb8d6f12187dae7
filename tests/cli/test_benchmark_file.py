"""A comparison of planners that is stopped and goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from lightning_vmat.benchmarks import optimizer_benchmark
from lightning_vmat.benchmarks.benchmark_file import BenchmarkFile
from lightning_vmat.benchmarks.optimizer_race import Setting
from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.recipes.weights import default_weights

SETTINGS: dict[str, object] = {"cohort": Path("cohort"), "planners": ["fluence"]}


def figures(path: Path) -> BenchmarkFile:
    benchmark = BenchmarkFile.open(path, SETTINGS)
    benchmark.add("fluence", "a", {"objective": 1.0})
    benchmark.add_doses("clinical", "a", {"PTV D95": 60.0, "Cord max": 10.0})
    return benchmark


def test_a_stopped_comparison_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures(path).save()
    again = BenchmarkFile.open(path, SETTINGS)
    assert again.has("fluence", "a") and not again.has("fluence", "b")
    again.add("fluence", "b", {"objective": 3.0})
    again.add_doses("clinical", "b", {"PTV D95": 62.0})
    assert not path.exists()
    text = again.finish()
    assert "| all 2 | fluence | 2 |" in text and "| PTV D95 | 61.0 |" in text
    kept = json.loads(path.read_text())
    assert kept["quartiles"]["fluence"]["objective"] == [1.5, 2.0, 2.5]
    assert kept["mean_doses_gy"]["clinical"] == {"Cord max": 10.0, "PTV D95": 61.0}
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]


def test_a_finished_comparison_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures(path).finish()
    assert not BenchmarkFile.open(path, SETTINGS).has("fluence", "a")


def test_a_folder_in_place_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder, expected a file to write"):
        BenchmarkFile.open(tmp_path, SETTINGS)


def test_other_settings_and_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures(path).save()
    with pytest.raises(ValueError, match=r"figures.json.partial: of a stopped run with .*remove it"):
        BenchmarkFile.open(path, {**SETTINGS, "planners": ["reference"]})
    path.with_name("figures.json.partial").write_text('{"settings":')
    with pytest.raises(ValueError, match=r"figures.json.partial: expected figures of a stopped run"):
        BenchmarkFile.open(path, SETTINGS)


def planned(cohort: Path, path: Path) -> list[str]:
    """The comparison of one planner on all cases of a cohort."""
    return [
        "benchmark",
        "planners",
        "--cohort",
        str(cohort),
        "--planners",
        "fluence",
        "--voxels",
        "300",
        "--json",
        str(path),
    ]


def test_a_killed_comparison_goes_on_with_the_cases_that_are_left(tmp_path: Path) -> None:
    """Killed between the first case and the last: what was done is neither lost nor done twice."""
    cohort, path = tmp_path / "cohort", tmp_path / "figures.json"
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        write_case(make_phantom(seed, "tiny"), cohort / name)
    Cohort(cohort, {"train": [], "validation": [], "test": names}).write({})
    child = os.fork()
    if child == 0:
        main(planned(cohort, path))
        os._exit(0)  # it was to be killed
    partial, deadline = tmp_path / "figures.json.partial", time.monotonic() + 100
    while not partial.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    kept = json.loads(partial.read_text())["cases"]["fluence"]
    assert 1 <= len(kept) < len(names)
    assert main(planned(cohort, path)) == 0
    figures = json.loads(path.read_text())["cases"]["fluence"]
    assert len(figures) == len(names)
    assert {case: {name: figures[case][name] for name in row} for case, row in kept.items()} == kept  # seconds too
    assert not partial.exists()


def test_a_stopped_race_goes_on_with_the_settings_that_are_left(tmp_path: Path) -> None:
    write_case(make_phantom(42, "tiny"), tmp_path / "cohort" / "a")
    Cohort(tmp_path / "cohort", {"train": [], "validation": [], "test": ["a"]}).write({})
    path = tmp_path / "race.json"
    race = ["benchmark", "optimizers", "--cohort", str(tmp_path / "cohort"), "--json", str(path), "--voxels=300"]
    race += ["--evaluations=1", "--max_evaluations=2", "--changed_settings=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer_benchmark, "settings", lambda _: {"as trained": Setting()})
        assert main(race) == 0
        figures = json.loads(path.read_text())
        rows = [{**row, "objective": 7.0} for row in figures["rows"]]
        settings = {name: figures[name] for name in ("cohort", "split", "evaluations", "max_evaluations", "voxels")}
        settings |= {"run": str(default_weights("learned")), "machine": None, "cases": None}
        path.with_name("race.json.partial").write_text(json.dumps({"settings": settings, "rows": rows}))
        patch.setattr(optimizer_benchmark, "settings", lambda _: {"as trained": Setting(), "again": Setting()})
        assert main(race) == 0
    found = json.loads(path.read_text())["rows"]
    assert [row for row in found if row["setting"] == "as trained"] == rows  # neither lost nor done twice
    assert [row["objective"] for row in found if row["setting"] == "again"] == [
        row["objective"] for row in figures["rows"]
    ]
    assert not path.with_name("race.json.partial").exists()
