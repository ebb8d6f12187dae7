"""Checkpoints in the run directory, independent of the logger, written whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from lightning_vmat.files.atomic import atomic_file


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, so that a full disk or a killed job leaves the last good file.

    A replaced `last.ckpt` is kept as `previous.ckpt`.

    Raises:
        OSError: the checkpoint cannot be written; the error names it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole or not at all; keep the `last.ckpt` that it replaces as `previous.ckpt`."""
        with atomic_file(Path(path)) as draft:
            super().save_checkpoint(checkpoint, draft, storage_options)
            if Path(path).name == "last.ckpt" and Path(path).is_file():
                keep(Path(path), "previous.ckpt")


def keep(path: Path, name: str) -> None:
    """Keep a file under a second name in its folder, replacing a file of that name."""
    with atomic_file(path.with_name(name)) as draft:
        try:
            draft.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, draft)


class RunCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` and the one before it, and `checkpoints/best.ckpt` if a metric is monitored.

    With `num_sanity_val_steps: -1` all validation cases are also judged before training, and the untrained weights
    are the first candidate, so that the best checkpoint is never worse than no training.

    Args:
        monitor: name of the logged value that decides on the best checkpoint; None keeps only the last one.
        mode: `min` if lower is better, `max` if higher is better.
        every_n_epochs: number of epochs between checkpoints.
    """

    def __init__(self, monitor: str | None = None, mode: str = "min", every_n_epochs: int = 1) -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            every_n_epochs=every_n_epochs,
            save_top_k=1 if monitor else 0,
            save_last=True,
            save_on_train_epoch_end=True,  # a resumed run then has nothing of the epoch left to do
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put checkpoints in `checkpoints/` of the run directory and write them atomically."""
        self.dirpath = str((Path(trainer.default_root_dir) / "checkpoints").resolve())
        trainer.strategy.checkpoint_io = WholeCheckpointIO()
        super().setup(trainer, pl_module, stage)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint of the untrained network if the sanity check covered all validation cases."""
        if trainer.num_sanity_val_steps == float("inf") and self.monitor in trainer.callback_metrics:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        ready_to_save(trainer, Path(filepath))
        super()._save_checkpoint(trainer, filepath)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Save the best checkpoint, and always the last one, which Lightning skips unless it is the best."""
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        self._last_global_step_saved = trainer.global_step


def ready_to_save(trainer: Trainer, path: Path) -> None:
    """Refuse weights that are not finite, and flush the loggers.

    Raises:
        ValueError: weights with NaN or infinite values; earlier checkpoints are kept.
    """
    spoilt = [name for name, value in trainer.lightning_module.named_parameters() if not value.isfinite().all()]
    if spoilt:
        raise ValueError(
            f"epoch {trainer.current_epoch}: {spoilt[0]} is NaN or infinite, expected finite weights; "
            f"{path} is unchanged"
        )
    for logger in trainer.loggers:
        logger.save()
