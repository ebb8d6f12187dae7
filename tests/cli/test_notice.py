"""A training that is told that its time is up stops with a checkpoint, and its next turn ends as if it never had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_vmat.callbacks import notice
from lightning_vmat.cli import main
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.case_files import write_case
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.phantom import make_phantom
from lightning_vmat.recipes.base import Fluence, PlanRecipe

CHECKPOINT = {"class_path": "lightning_vmat.callbacks.checkpoint.RunCheckpoint"}
EPOCHS, BATCHES = 2, 3


class NoisyWeight(PlanRecipe):
    """Its weight depends on each case, each draw of noise and the order of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        return (self.weight * batch.condition[:, 0]).clamp(min=0.0)

    def training_step(self, batch: PlanBatch, batch_index: int) -> torch.Tensor:
        return (self.generate(batch) - torch.rand(())).square().mean()

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        self.log("val/weight", self.weight, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class GiveNotice(Callback):
    """Signals this process before one batch.

    Args:
        step: number of the batch, counted over epochs.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: PlanBatch, index: int) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    names = ["a", "b", "c", "d", "e"]
    for seed, name in enumerate(names):
        write_case(make_phantom(seed, "tiny"), root / name)
    Cohort(root, {"train": names[:BATCHES], "validation": names[BATCHES:4], "test": names[4:]}).write({})
    return root


def config(cohort: Path, folder: Path, *callbacks: dict[str, object]) -> Path:
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS, "log_every_n_steps": 1, "logger": False}
    trainer |= {"enable_progress_bar": False, "num_sanity_val_steps": 0, "default_root_dir": str(folder / "run")}
    content = {
        "model": {"class_path": f"{__name__}.NoisyWeight"},
        "data": {"cohort": str(cohort), "structures": ["Rectum"]},
        "trainer": trainer | {"callbacks": [CHECKPOINT, *callbacks]},
    }
    path = folder / f"{len(callbacks)}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def state(folder: Path) -> tuple[int, int, float]:
    """Epoch, step and weight of the last checkpoint."""
    last = torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    return last["epoch"], last["global_step"], float(last["state_dict"]["weight"])


@pytest.fixture(scope="module")
def uninterrupted(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int, float]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(["fit", "--config", str(config(cohort, folder))]) == 0
    return state(folder)


@pytest.mark.parametrize("step", range(EPOCHS * BATCHES - 1))
def test_every_step_counts_once(
    step: int,
    cohort: Path,
    tmp_path: Path,
    uninterrupted: tuple[int, int, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    signals = {"class_path": f"{__name__}.GiveNotice", "init_args": {"step": step}}
    assert main(["fit", "--config", str(config(cohort, tmp_path, signals))]) == notice.STOPPED
    assert f"stopped at step {step + 1}" in capsys.readouterr().err
    assert state(tmp_path)[1] == step + 1
    assert main(["fit", "--config", str(config(cohort, tmp_path))]) == 0
    assert state(tmp_path)[:2] == uninterrupted[:2]
    if (step + 1) % BATCHES == 0:  # at an epoch's end, to the same bits
        assert state(tmp_path)[2] == uninterrupted[2]


def test_notice_of_the_last_batch_comes_too_late(cohort: Path, tmp_path: Path) -> None:
    signals = {"class_path": f"{__name__}.GiveNotice", "init_args": {"step": EPOCHS * BATCHES - 1}}
    assert main(["fit", "--config", str(config(cohort, tmp_path, signals))]) == 0


def test_early_notice_harms_nobody() -> None:
    """The signal would end a process that does not listen, as it ends one that imports this package only."""
    code = "import os, signal; from lightning_vmat.callbacks import notice; {} os.kill(os.getpid(), signal.SIGUSR1); "
    code += "print(notice.given())"
    heard = subprocess.run([sys.executable, "-c", code.format("notice.listen();")], capture_output=True, text=True)
    assert (heard.returncode, heard.stdout) == (0, "True\n")
    deaf = subprocess.run([sys.executable, "-c", code.format("")], capture_output=True, text=True)
    assert deaf.returncode == -signal.SIGUSR1
