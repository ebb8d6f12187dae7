"""Stop in time, with a checkpoint, so that a job goes on in its next turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_vmat.callbacks.checkpoint import ready_to_save
from lightning_vmat.callbacks.preemption import TimeIsUp, given


class StopOnNotice(Checkpoint):
    """On SIGUSR1, ends the training after the batch: `checkpoints/last.ckpt` first, then `TimeIsUp`.

    Processes that train together ask each other after each batch, so notice to one stops all. The last batch of an
    epoch belongs with its validation: the training ends after that. Must come after all other callbacks.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:
            stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.should_stop and trainer.current_epoch + 1 != trainer.max_epochs:  # else it ends anyway
            stop_if_asked(trainer)


def stop_if_asked(trainer: Trainer) -> None:
    """Keep a checkpoint and stop, if notice was given to any process.

    Raises:
        TimeIsUp: it was.
    """
    if trainer.strategy.reduce_boolean_decision(given(), all=False):
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        ready_to_save(trainer, checkpoint)
        trainer.save_checkpoint(checkpoint)
        raise TimeIsUp(f"stopped at step {trainer.global_step}, as asked by SIGUSR1; goes on from {checkpoint}")
