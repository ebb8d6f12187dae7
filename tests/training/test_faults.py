"""What can go wrong while a recipe trains ends in one line, and leaves the last checkpoint to go on from."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import full_disk
from lightning.pytorch import Callback, LightningModule, Trainer
from one_weight import weight_of

from lightning_vmat.cli import main
from lightning_vmat.commands.resuming import is_whole

TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends in."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("ranks", [[], TWO_RANKS], ids=["one rank", "two ranks"])
def test_a_loss_that_is_nan_names_the_case_and_keeps_the_weights(
    ranks: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = config.parent / "run" / "checkpoints" / "last.ckpt"
    fit = ["fit", "--config", str(config), *ranks, "--trainer.num_sanity_val_steps", "0"]
    error = error_of([*fit, "--model.init_args.spoil", "5"], capsys)
    assert "cases phantom_000" in error and "loss is nan" in error
    assert is_whole(last) and abs(weight_of(last)) < 10


def test_weights_that_are_not_finite_are_never_saved(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = config.parent / "run" / "checkpoints" / "last.ckpt"
    options = ["--model.init_args.empty_step", "6", "--trainer.limit_val_batches", "0"]
    callbacks = ["--trainer.callbacks", "lightning_vmat.callbacks.checkpoint.RunCheckpoint"]
    error = error_of(["fit", "--config", str(config), *options, *callbacks], capsys)
    assert "weight is NaN or infinite" in error and str(last) in error
    assert abs(weight_of(last)) < 10


def test_a_full_disk_names_the_checkpoint_and_the_run_goes_on(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = config.parent / "run"
    fit = ["fit", "--config", str(config)]
    with full_disk(beyond_bytes=20_000):  # room for config.yaml, not for a checkpoint
        error = error_of(fit, capsys)
    assert str(run / "checkpoints") in error and ".ckpt" in error
    assert not list(run.rglob("*.ckpt"))
    assert main(fit) == 0
    assert is_whole(run / "checkpoints" / "last.ckpt")


def test_a_run_directory_that_cannot_be_made_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "file").touch()
    place = str(config.parent / "file" / "run")
    assert place in error_of(["fit", "--config", str(config), "--trainer.default_root_dir", place], capsys)


class LoseWorker(Callback):
    """Kills the processes that load, as the kernel does when memory runs out, in the second epoch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 0:
            for process in multiprocessing.active_children():
                os.kill(process.pid or 0, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore")  # of workers, forks and threads
def test_a_lost_data_worker_is_named_and_the_run_goes_on(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--config", str(config)]
    losing = ["--data.num_workers", "1", "--trainer.callbacks+", f"{__name__}.LoseWorker"]
    error = error_of([*fit, *losing], capsys)
    assert "a data worker was killed" in error and "--data.num_workers 0" in error
    gc.collect()  # the loader with the lost worker, which torch would blame on the next child process that ends
    assert main(fit) == 0
    last = torch.load(config.parent / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 15
