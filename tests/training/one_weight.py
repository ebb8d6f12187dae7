"""A recipe of one weight that draws noise, and dies where it is told to: what its run leaves can be told to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from lightning_vmat.cli import main
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.recipes.base import Fluence, PlanRecipe, require_finite

DIE_IN = "TEST_DIE_IN"  # environment variable: a hook, a colon, and at which call


class OneWeight(PlanRecipe):
    """Fluence in proportion to the first condition channel.

    Args:
        start: the weight before training.
        rate: learning rate.
        spoil: step whose loss is NaN.
        empty_step: step after which the weight is infinite though no loss ever was.
    """

    def __init__(self, start: float = 0.5, rate: float = 0.1, spoil: int = -1, empty_step: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))
        self.rate, self.spoil, self.empty_step = rate, spoil, empty_step
        self.register_buffer("ballast", torch.zeros(10_000))  # what makes a checkpoint longer than other files
        self.calls: dict[str, int] = {}

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        return (self.weight * batch.condition[:, 0]).clamp(min=0.0)

    def training_step(self, batch: PlanBatch, batch_index: int) -> torch.Tensor:
        die_in("training_step", self.calls)
        loss = (self.weight - torch.randn(())).square() * (1 + len(batch.case_ids[0]))
        if self.global_step == self.spoil:
            loss = loss * float("nan")
        require_finite(loss, batch)
        self.log("train/loss", loss.detach(), batch_size=1)
        self.log("train/case", float(batch.case_ids[0][-1]), batch_size=1)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: PlanBatch, batch_idx: int) -> None:
        if self.global_step == self.empty_step:
            self.weight.data.fill_(float("inf"))

    def validation_step(self, batch: PlanBatch, batch_index: int) -> None:
        die_in("validation_step", self.calls)
        super().validation_step(batch, batch_index)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        die_in("on_save_checkpoint", self.calls)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def die_in(hook: str, calls: dict[str, int]) -> None:
    """Kill this process at the call of the hook that `DIE_IN` names."""
    calls[hook] = calls.get(hook, 0) + 1
    if os.environ.get(DIE_IN) == f"{hook}:{calls[hook]}":
        os.kill(os.getpid(), signal.SIGKILL)


def killed(arguments: list[str], where: str) -> None:
    """Run `vmat` in a process that is killed on its way, as by `kill -9`."""
    child = os.fork()
    if child == 0:
        os.environ[DIE_IN] = where
        main(arguments)
        os._exit(0)  # it was to be killed
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def configuration(cohort: Path, folder: Path) -> Path:
    """A whole configuration in a folder; its run goes to `run` there."""
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 5, "log_every_n_steps": 1, "num_sanity_val_steps": 0}
    trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": str(folder / "run")}
    callback = "lightning_vmat.callbacks.checkpoint.RunCheckpoint"
    content = {
        "seed_everything": 3,
        "model": {"class_path": "one_weight.OneWeight"},
        "data": {"cohort": str(cohort), "structures": ["Rectum"]},
        "trainer": trainer | {"callbacks": [{"class_path": callback, "init_args": {"monitor": "val/diversity"}}]},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def weight_of(checkpoint: Path) -> float:
    """The weight that a checkpoint holds."""
    return float(torch.load(checkpoint, weights_only=True)["state_dict"]["weight"])
