"""Sweeps: each trial's command, as W&B's agent would make it, is one that `vmat fit` takes as it was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lightning_vmat.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
ENDS = ("least", "most")


def sampled(parameters: dict[str, dict[str, Any]], end: str) -> dict[str, dict[str, Any]]:
    """The least or the most that each parameter can be."""
    choices = {name: one.get("values") or [one["min"], one["max"]] for name, one in parameters.items()}
    return {name: {"value": min(values) if end == "least" else max(values)} for name, values in choices.items()}


def arguments_of(sweep: dict[str, Any], end: str, folder: Path) -> list[str]:
    """What `vmat` is called with in a trial named `trial`: the command runs, but finds another `vmat`."""
    stand_in = folder / "vmat"
    stand_in.write_text(f'#!{sys.executable}\nimport sys\nprint("\\0".join(sys.argv[1:]), end="")\n')
    stand_in.chmod(0o755)
    macros = create_sweep_command_args({"args": sampled(sweep["parameters"], end)})
    command: list[str] = []
    for word in create_sweep_command(sweep["command"]):
        command += macros["args"] if word == "${args}" else [word]
    environment = os.environ | {"WANDB_RUN_ID": "trial", "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, cwd=CONFIGS.parent, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_trial_is_a_fit(
    path: Path, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = yaml.safe_load(path.read_text())
    arguments = arguments_of(sweep, end, tmp_path)
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert stopped.value.code in (None, 0)
    config = yaml.safe_load(capsys.readouterr().out)
    for name, sample in sampled(sweep["parameters"], end).items():
        value = config
        for key in name.split("."):
            value = value[key]
        assert value == sample["value"]
    assert config["trainer"]["default_root_dir"] == f"runs/sweeps/{path.stem}/trial"
    assert config["trainer"]["logger"]["class_path"] == "lightning_vmat.callbacks.wandb_run.WandbRun"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_objective_is_what_the_recipe_keeps_its_best_by(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    callbacks = yaml.safe_load((CONFIGS / path.name).read_text())["trainer"]["callbacks"]
    kept_by = [one["init_args"]["monitor"] for one in callbacks if "monitor" in one["init_args"]]
    if path.stem == "distillation":  # keeps the last maps: their objective as ideal fluence says nothing of the plan
        assert not kept_by
        kept_by = ["val/fluence_error"]
    (monitor,) = kept_by
    assert sweep["metric"] == {"name": monitor, "goal": "minimize"}
    assert "# Objective: " in path.read_text()


def test_every_recipe_has_a_sweep() -> None:
    recipes = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.stem != "network")
    assert [path.name for path in SWEEPS] == recipes
