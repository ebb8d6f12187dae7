"""Planners, optimizers, objectives and readers of one's own, without a change of the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import yaml

import lightning_vmat as vmat
from lightning_vmat.cli import main
from lightning_vmat.objectives.protocol import OBJECTIVE_TYPES
from lightning_vmat.registry import register

OURS = """
from dataclasses import dataclass

import lightning_vmat as vmat
from lightning_vmat.l2o.baselines.adam import Adam


class OpenField:
    takes = ("evaluations",)

    def __init__(self, settings):
        self.settings = settings

    def plan(self, case):
        problem = vmat.build_problem(case, self.settings.voxels, self.settings.seed)
        return vmat.PlanResult(problem.open_field * problem.scale_mu, None, vmat.Trace())


@dataclass(frozen=True)
class SlowAdam(Adam):
    learning_rate: float = 0.001


@vmat.register_objective("NAME")
@dataclass(frozen=True)
class SquaredMean(vmat.DoseObjective):
    limit_gy: float

    def __call__(self, dose_gy, voxels):
        return (dose_gy @ voxels.fraction - self.limit_gy).clamp(min=0) ** 2


def read_seed(path):
    return vmat.phantom(int(path.read_text()), size="tiny")
"""


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's, on the path, of another name in each test."""
    name = f"ours_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(OURS.replace("NAME", name))
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the tests' runtime type checks, which users do not have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def planned(case: Path, out: Path, *options: str) -> dict[str, Any]:
    assert main(["plan", str(case), "--out", str(out), "--voxels", "300", *options]) == 0
    figures: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return figures


def test_a_planner_by_import_path(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vmat.write_case(vmat.phantom(0, size="tiny"), tmp_path / "case")
    name = f"{module}.OpenField"
    figures = planned(tmp_path / "case", tmp_path / "out", "--planner", name)
    assert figures["planner"] == name and figures["dose_evaluations"] == 0
    capsys.readouterr()
    assert main(["plan", str(tmp_path / "case"), "--out", str(tmp_path / "x"), "--planner", name, "--run", "r"]) == 2
    assert f"run r: planner {name} does not take one (it takes evaluations)" in capsys.readouterr().err


def test_a_planner_by_registration_takes_part_in_a_benchmark(tmp_path: Path) -> None:
    @vmat.register_planner("slow_open_field")
    class OpenField:
        def __init__(self, settings: vmat.PlannerSettings) -> None:
            self.settings = settings

        def plan(self, case: vmat.Case) -> vmat.PlanResult:
            problem = vmat.build_problem(case, self.settings.voxels)
            return vmat.PlanResult(problem.open_field * problem.scale_mu, None, vmat.Trace())

    assert vmat.planner("slow_open_field", voxels=300).plan(vmat.phantom(0, size="tiny")).planner == "slow_open_field"
    assert main(["prepare", "phantom", "--count", "1", "--size", "tiny", "--out", str(tmp_path / "cohort")]) == 0
    split = {"train": [], "validation": [], "test": ["phantom_0000"]}
    (tmp_path / "cohort" / "split.yaml").write_text(yaml.safe_dump(split))
    arguments = ["--planners", "slow_open_field", "--voxels", "300", "--json", str(tmp_path / "out.json")]
    assert main(["benchmark", "planners", "--cohort", str(tmp_path / "cohort"), *arguments]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["cases"]["slow_open_field"]["phantom_0000"]["objective"] > 0


def test_an_optimizer_by_import_path_and_by_registration(module: str) -> None:
    case = vmat.phantom(0, size="tiny")
    slow, quick = (vmat.planner(name, voxels=300).plan(case) for name in (f"fluence+{module}.SlowAdam", "fluence+adam"))
    assert slow.trace.points[-1].objective > 1.1 * quick.trace.points[-1].objective
    vmat.register_optimizer(module)(sys.modules[module].SlowAdam)
    again = vmat.planner(f"fluence+{module}", voxels=300).plan(case)
    assert again.trace.points[-1].objective == slow.trace.points[-1].objective
    with pytest.raises(ValueError, match="lacks init or update, expected an Optimizer"):
        vmat.planner("fluence+collections.OrderedDict")


def test_an_objective_by_registration(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command imports the module that the environment names; the protocol then knows the type."""
    protocol = {
        "prescription_gy": {"PTV": 60.0},
        "fractions": 20,
        "objectives": [
            {"structure": "PTV", "type": "squared_underdose", "weight": 10.0, "limit_fraction": 1.0},
            {"structure": "Rectum", "type": module, "weight": 1.0, "limit_gy": 20.0},
        ],
        "goals": [{"structure": "PTV", "measure": "D95", "at_least": 57.0}],
    }
    path = tmp_path / "protocol.yaml"
    path.write_text(yaml.safe_dump(protocol))
    case = vmat.phantom(0, size="tiny").with_settings(protocol=str(path))
    vmat.write_case(case, tmp_path / "case")
    assert main(["plan", str(tmp_path / "case"), "--planner", "fluence", "--out", str(tmp_path / "none")]) == 2
    monkeypatch.setenv("VMAT_PLUGINS", module)
    without = planned(tmp_path / "case", tmp_path / "weak", "--planner", "fluence", "--wish", "Rectum=0.0625")
    wished = planned(tmp_path / "case", tmp_path / "strong", "--planner", "fluence", "--wish", "Rectum=16")
    assert wished["structures"]["Rectum"]["mean_gy"] < without["structures"]["Rectum"]["mean_gy"]


def test_a_protocol_imports_nothing(module: str, tmp_path: Path) -> None:
    line = {"structure": "PTV", "type": f"{module}.SquaredMean", "weight": 1.0, "limit_gy": 1.0}
    path = tmp_path / "protocol.yaml"
    goals = [{"structure": "PTV", "measure": "D95", "at_least": 57.0}]
    path.write_text(
        yaml.safe_dump({"prescription_gy": {"PTV": 60.0}, "fractions": 20, "objectives": [line], "goals": goals})
    )
    with pytest.raises(ValueError, match=r"objectives\[0\]\.type: got .* expected one of squared_underdose"):
        vmat.load_protocol(path)
    assert module not in sys.modules


def test_a_reader_by_import_path(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "patient.seed").write_text("7")
    reader = f"{module}.read_seed"
    case = vmat.read_case(tmp_path / "patient.seed", reader=reader)
    assert case.case_id == "phantom_0007"
    out = tmp_path / "out"
    figures = planned(tmp_path / "patient.seed", out, "--reader", reader, "--planner", "conventional@5")
    assert figures["case"] == "phantom_0007"
    planned(tmp_path / "patient.seed", tmp_path / "agility", "--reader", reader, "--machine", "elekta_agility",
            "--planner", "conventional@5")  # fmt: skip
    assert "elekta agility" in (tmp_path / "agility" / "report.html").read_text()
    capsys.readouterr()
    other = ["plan", str(tmp_path / "patient.seed"), "--out", str(tmp_path / "x"), "--reader", reader]
    assert main([*other, "--machine", "elekta_mlci2"]) == 2
    assert "expected leaf boundaries of machine elekta_mlci2" in capsys.readouterr().err
    bad = ["plan", str(tmp_path / "patient.seed"), "--out", str(tmp_path / "x"), "--reader", "pathlib.Path"]
    assert main(bad) == 2
    assert "reader pathlib.Path: " in capsys.readouterr().err


def test_names_that_are_taken(module: str) -> None:
    with pytest.raises(ValueError, match="objective 'mean': the name is taken by lightning_vmat"):
        vmat.register_objective("mean")(OBJECTIVE_TYPES["max"])
    with pytest.raises(ValueError, match="expected a name of letters, digits, _ and -"):
        vmat.register_reader("a+b")(lambda path: vmat.phantom(0))
    known: dict[str, int] = {}
    register("thing", known, "mine", 1, "notebook")
    register("thing", known, "mine", 2, "notebook")
    assert known == {"mine": 2}
    with pytest.raises(ValueError, match="thing 'mine': the name is taken by notebook"):
        register("thing", known, "mine", 3, "elsewhere")


@pytest.mark.parametrize("kind", ["objective", "planner", "optimizer", "reader"])
def test_a_decorator_without_a_name_is_refused(kind: str, unchecked: None) -> None:
    with pytest.raises(ValueError, match=rf'expected a name of letters.* as in @register_{kind}\("name"\)'):
        getattr(vmat, f"register_{kind}")(OBJECTIVE_TYPES["mean"])


def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMAT_PLUGINS", "no_such_plugin")
    with pytest.raises(ValueError, match="VMAT_PLUGINS no_such_plugin: cannot be imported"):
        vmat.planner("unheard_of")
