"""Stops a fit before the time limit, with a checkpoint to continue from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_vmat.callbacks.checkpoint import ready_to_save
from lightning_vmat.callbacks.preemption import TimeIsUp, preempted


class StopOnPreemption(Checkpoint):
    """On SIGUSR1, saves `checkpoints/last.ckpt` after the batch and raises `TimeIsUp`.

    Processes that train together synchronise after each batch, so a signal to one stops all. After the last batch
    of an epoch the training first validates. This callback must come after all others.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a batch, except the last of an epoch, if a signal was received."""
        if not trainer.is_last_batch:
            stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after an epoch, except the last one, if a signal was received."""
        if not trainer.should_stop and trainer.current_epoch + 1 != trainer.max_epochs:  # else it ends anyway
            stop_if_asked(trainer)


def stop_if_asked(trainer: Trainer) -> None:
    """Save a checkpoint and stop if any process received the signal.

    Raises:
        TimeIsUp: a process received the signal.
    """
    if trainer.strategy.reduce_boolean_decision(preempted(), all=False):
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        ready_to_save(trainer, checkpoint)
        trainer.save_checkpoint(checkpoint)
        raise TimeIsUp(f"stopped at step {trainer.global_step} by SIGUSR1; the same command resumes from {checkpoint}")
