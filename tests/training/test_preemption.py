"""A training that is told that its time is up stops with a checkpoint, and its next turn ends as if it never had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from one_weight import configuration, weight_of

from lightning_vmat.callbacks import preemption
from lightning_vmat.cli import main

EPOCHS, BATCHES = 2, 3


class GiveNotice(Callback):
    """Signals this process before one batch.

    Args:
        step: number of the batch, counted over epochs.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGUSR1)


def fit(config: Path, *options: str) -> int:
    return main(["fit", "--config", str(config), "--trainer.max_epochs", str(EPOCHS), *options])


def preempted_at(config: Path, step: int) -> Path:
    """Another configuration, of a training that gets notice before one batch."""
    content = yaml.safe_load(config.read_text())
    content["trainer"]["callbacks"].append({"class_path": f"{__name__}.GiveNotice", "init_args": {"step": step}})
    path = config.with_name("preempted_at.yaml")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def uninterrupted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The weight at the end."""
    config = configuration(cohort, tmp_path_factory.mktemp("uninterrupted"))
    assert fit(config) == 0
    return weight_of(config.parent / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("step", [0, BATCHES - 1, BATCHES + 1])  # in an epoch, at its end, in the last one
def test_every_step_counts_once(
    step: int, config: Path, uninterrupted: float, capsys: pytest.CaptureFixture[str]
) -> None:
    last = config.parent / "run" / "checkpoints" / "last.ckpt"
    assert fit(preempted_at(config, step)) == preemption.STOPPED
    assert f"stopped at step {step + 1}" in capsys.readouterr().err
    assert torch.load(last, weights_only=True)["global_step"] == step + 1
    assert fit(config) == 0
    end = torch.load(last, weights_only=True)
    assert (end["epoch"], end["global_step"]) == (EPOCHS - 1, EPOCHS * BATCHES)
    if (step + 1) % BATCHES == 0:  # noise is drawn anew each epoch: at an epoch's end, to the same bits
        assert weight_of(last) == uninterrupted


def test_notice_of_the_last_batch_comes_too_late(config: Path) -> None:
    assert fit(preempted_at(config, EPOCHS * BATCHES - 1)) == 0


@pytest.mark.parametrize(("listens", "status", "output"), [(True, 0, "True\n"), (False, -signal.SIGUSR1, "")])
def test_early_notice_harms_nobody_who_listens(listens: bool, status: int, output: str) -> None:
    code = "import os, signal; from lightning_vmat.callbacks import preemption; "
    code += "preemption.listen(); " if listens else ""
    code += "os.kill(os.getpid(), signal.SIGUSR1); print(preemption.preempted())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, output)
