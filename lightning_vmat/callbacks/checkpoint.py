"""Checkpoints inside the run directory, whichever logger is used, written whole or not at all."""

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
    """Writes beside the destination and renames, so that a full disk or a killed job leaves the last good file.

    The `last.ckpt` that another replaces stays as `previous.ckpt`.

    Raises:
        OSError: naming the checkpoint, when it cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint whole or not at all; keep the `last.ckpt` that it replaces as `previous.ckpt`."""
        with atomic_file(Path(path)) as draft:
            super().save_checkpoint(checkpoint, draft, storage_options)
            if Path(path).name == "last.ckpt" and Path(path).is_file():
                keep(Path(path), "previous.ckpt")


def keep(path: Path, name: str) -> None:
    """Give a file another name beside its own, in place of a file that has it."""
    with atomic_file(path.with_name(name)) as draft:
        try:
            draft.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, draft)


class RunCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt` and the one before it, and `checkpoints/best.ckpt` when a metric is monitored.

    With `num_sanity_val_steps: -1` all validation cases are judged before training too, and the untrained weights
    are the first candidate: the best checkpoint is then never worse than no training at all.

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
            save_on_train_epoch_end=True,  # nothing of an epoch is left to do for a run that goes on from here
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
        """The best one; and word that it is time for the last one too, which Lightning skips unless it is the best."""
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        self._last_global_step_saved = trainer.global_step


def ready_to_save(trainer: Trainer, path: Path) -> None:
    """Refuse weights that are not sound, and save what was logged until now.

    Raises:
        ValueError: weights that are NaN or infinite; earlier checkpoints stay.
    """
    spoilt = [name for name, value in trainer.lightning_module.named_parameters() if not value.isfinite().all()]
    if spoilt:
        raise ValueError(
            f"epoch {trainer.current_epoch}: {spoilt[0]} is NaN or infinite, expected finite weights; "
            f"{path} stays as it was"
        )
    for logger in trainer.loggers:
        logger.save()
