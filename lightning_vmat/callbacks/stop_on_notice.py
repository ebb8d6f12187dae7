"""Stop in time, with a checkpoint, so that a job goes on in its next turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_vmat.callbacks.notice import TimeIsUp, given


class StopOnNotice(Callback):
    """On SIGUSR1, ends the training after the batch: `checkpoints/last.ckpt` first, then `TimeIsUp`.

    Processes that train together ask each other after each batch, so notice to one stops all.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.reduce_boolean_decision(given(), all=False):
            checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
            raise TimeIsUp(f"stopped at step {trainer.global_step}, as asked by SIGUSR1; goes on from {checkpoint}")
