"""A network that knows the arcs of its cases, from a cohort of two arcs to a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from lightning_vmat.cases.case_files import CASE_FILE, read_case
from lightning_vmat.cases.plan_files import write_plan
from lightning_vmat.cli import main
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.runs import channel_settings, check_channels
from lightning_vmat.recipes.trained import load_start

CONFIG = Path(__file__).parents[2] / "configs" / "regression.yaml"
WISHES = ["Rectum", "Body"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms with a full and a partial arc of 12 control points each, and plans of open fields."""
    root = tmp_path_factory.mktemp("arcs") / "cohort"
    assert main(["prepare", "phantom", "--out", str(root), "--count=4", "--size=tiny", "--jobs=1", "--wishes=1.0"]) == 0
    for folder in sorted(root.glob("phantom_*")):
        settings = yaml.safe_load((folder / CASE_FILE).read_text())
        (first,) = settings["arcs"]
        partial = {**first, "direction": "counterclockwise", "gantry_start_deg": 140.0, "gantry_stop_deg": 220.0}
        (folder / CASE_FILE).write_text(yaml.safe_dump({**settings, "arcs": [first, partial]}))
        left = torch.full((24, 8), -20.0)
        write_plan(Plan(left, -left, torch.full((24,), 30.0)), folder / "plan.safetensors")
    return root


@pytest.fixture(scope="module")
def run(cohort: Path) -> Path:
    network = "--model.init_args.network.init_args"
    arguments = ["--config", str(CONFIG), "--data.cohort", str(cohort), "--data.voxels", "300", "--data.arcs=true"]
    arguments += ["--data.fluence_evaluations=0", "--data.mirror=false"]
    arguments += ["--data.wishes", str(WISHES), f"{network}.channels", "[8, 8]", "--trainer.max_epochs", "6"]
    arguments += ["--model.init_args.warmup_steps", "0", "--model.init_args.optimizer.init_args.lr", "0.03"]
    arguments += ["--trainer.default_root_dir", str(cohort.parent / "run"), "--trainer.log_every_n_steps", "1"]
    assert main(["fit", *arguments]) == 0
    return cohort.parent / "run"


def test_network_and_run_know_the_arcs_and_the_named_wishes(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    settings, structures = config["model"]["init_args"]["network"]["init_args"], config["data"]["structures"]
    assert settings["arcs"] is True
    assert settings["condition_channels"] == len(ChannelSettings(structures, WISHES, arcs=True).names)
    assert channel_settings(run) == ChannelSettings(structures, WISHES, arcs=True)
    with pytest.raises(ValueError, match=r"data\.arcs false: expected true as in the run"):
        check_channels(run, ChannelSettings(structures, WISHES))
    with pytest.raises(ValueError, match=r"data\.wishes \[Body, Rectum\]: expected \[Rectum, Body\] as in the run"):
        check_channels(run, ChannelSettings(structures, WISHES[::-1], arcs=True))


def test_a_planner_gives_its_network_arcs_and_wishes(run: Path, cohort: Path) -> None:
    case = read_case(cohort / "phantom_0003")
    start = load_start(run)
    maps = start(CaseProblems(case, 300))
    assert maps.shape == case.fluence_shape
    for wish, same in (("Rectum", False), ("Bladder", True)):
        wished = case.with_settings(wishes={**case.wishes, wish: 8.0})
        assert torch.equal(start(CaseProblems(wished, 300)), maps) == same


def test_arcs_of_a_network_without_those_of_the_data_are_refused(
    cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", "--config", str(CONFIG), "--data.cohort", str(cohort)]
    assert main([*arguments, "--model.init_args.network.init_args.arcs=true"]) == 2
    assert "network.init_args.arcs is true, expected false as data.arcs is" in capsys.readouterr().err
