"""What a fit says, logs and records about itself."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_vmat.cli import main
from lightning_vmat.recipes.base import PlanRecipe

STEP_S, WAIT_S = 0.06, 0.03


class SlowSteps(Callback):
    """Steps of a known length that spend a known number of dose evaluations."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        assert isinstance(pl_module, PlanRecipe)
        pl_module.dose_evaluations += 7
        time.sleep(STEP_S)


class SlowData(Callback):
    """Time that passes between two steps."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        time.sleep(WAIT_S)


def throughput(run: Path) -> list[dict[str, float]]:
    """What was logged of each epoch's speed."""
    rows = csv.DictReader((run / "metrics" / "version_0" / "metrics.csv").read_text().splitlines())
    prefix = "throughput/"
    found = [{k.removeprefix(prefix): float(v) for k, v in row.items() if k.startswith(prefix) and v} for row in rows]
    return [speeds for speeds in found if speeds]


def test_throughput_is_logged_for_every_epoch(config: Path) -> None:
    callbacks = [f"{__name__}.SlowData", f"{__name__}.SlowSteps"]
    options = [option for name in callbacks for option in ("--trainer.callbacks+", name)]
    assert main(["fit", "--config", str(config), "--data.batch_size", "2", *options]) == 0
    epochs = throughput(config.parent / "run")
    assert len(epochs) == 5
    for speeds in epochs:  # three cases in two steps, which no machine does in less than the time slept
        assert 0 < speeds["cases_per_s"] <= 3 / (2 * (STEP_S + WAIT_S))
        assert speeds["dose_evaluations_per_s"] == pytest.approx(14 / 3 * speeds["cases_per_s"])
        assert 0 < speeds["data_wait_share"] < 1
    shares = sorted(speeds["data_wait_share"] for speeds in epochs)
    assert 0.1 < shares[2] < 0.7  # of a third that was slept


def test_a_recipe_without_dose_logs_none(config: Path) -> None:
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    assert [set(speeds) for speeds in throughput(config.parent / "run")] == [{"cases_per_s", "data_wait_share"}]


def test_fit_says_where_it_writes_and_how_to_go_on(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = config.parent / "run"
    assert main(["fit", "--config", str(config), "--trainer.max_epochs", "1"]) == 0
    said = caplog.text
    assert f"writing to {run}" in said and str(run / "config.yaml") in said and "the same command resumes" in said


def test_a_profile_is_a_trace_of_a_few_steps(config: Path) -> None:
    run = config.parent / "run"
    assert main(["fit", "--config", str(config), "--profile", "true"]) == 0
    events = json.loads((run / "profile" / "rank_0.json").read_text())["traceEvents"]
    steps = [
        event
        for event in events
        if event.get("cat") == "user_annotation" and str(event.get("name")).startswith("Optimizer.step")
    ]
    assert len(steps) == 4
    assert yaml.safe_load((run / "config.yaml").read_text())["profile"] is False  # of this command, not of the run
