"""Progress of training where no bar can move: in a log file or a Slurm job, one line a minute at most."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_vmat.progress import INTERVAL_S, Pace


class ProgressLines(ProgressBar):
    """Writes epoch, batch, optimizer step and losses to stdout: a line a minute at most, and one at the end.

    Args:
        interval_s: seconds between two lines.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        super().__init__()
        self.interval_s = interval_s
        self.pace = Pace(interval_s)
        self.is_enabled = True  # by this name `LightningModule.print` asks for it

    def enable(self) -> None:
        """Write lines again."""
        self.is_enabled = True

    def disable(self) -> None:
        """Write nothing: Lightning disables the progress of all processes but the first."""
        self.is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Write a text of the recipe's own, such as the table of a test."""
        if self.is_enabled:
            print(*args, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts the pace of the lines."""
        super().setup(trainer, pl_module, stage)
        self.pace = Pace(self.interval_s)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a line if one is due: epoch, batch, step and loss."""
        if self.pace.due():
            self._write(trainer, f"batch {batch_idx + 1} of {trainer.num_training_batches}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes a last line."""
        self._write(trainer, "ended")

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Writes a line if one is due."""
        self._evaluated(trainer, "validation", batch_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Writes a line if one is due."""
        self._evaluated(trainer, "test", batch_idx)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Writes a line if one is due."""
        self._evaluated(trainer, "prediction", batch_idx)

    def _evaluated(self, trainer: Trainer, what: str, batch_index: int) -> None:
        if self.pace.due():
            self._write(trainer, f"{what} batch {batch_index + 1}")

    def _write(self, trainer: Trainer, where: str) -> None:
        if not self.is_enabled:
            return
        losses = [f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items()]
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs
        epochs = f"epoch {epoch}" if last is None or last < 0 else f"epoch {min(epoch, last)} of {last}"
        parts = [epochs, where, f"step {trainer.global_step}", *losses, self.pace.elapsed()]
        print(", ".join(parts), file=sys.stdout, flush=True)
