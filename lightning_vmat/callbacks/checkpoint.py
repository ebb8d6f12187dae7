"""Checkpoints inside the run directory, whichever logger is used."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


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
        super().setup(trainer, pl_module, stage)
