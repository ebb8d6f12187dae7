"""Checkpoints inside the run directory, whichever logger is used, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside the destination and renames, so that a full disk or a killed job leaves the last good file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        partial = Path(path).with_suffix(".partial")
        try:
            super().save_checkpoint(checkpoint, partial, storage_options)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


class RunCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt`, and `checkpoints/best.ckpt` when a metric is monitored.

    Args:
        monitor: name of the logged value that says which checkpoint is best; None keeps only the last one.
        mode: `min` when lower is better, `max` when higher is.
        every_n_epochs: save every so many epochs.
    """

    def __init__(self, monitor: str | None = None, mode: str = "min", every_n_epochs: int = 1) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            save_top_k=1 if monitor else 0,
            save_last=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
        super().setup(trainer, pl_module, stage)
