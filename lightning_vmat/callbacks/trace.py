"""Profiles a few training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.profiler import ProfilerActivity, profile, supported_activities

from lightning_vmat.files.atomic import atomic_file

FOLDER = "profile"
FIRST, STEPS = 2, 4  # earlier steps allocate memory that later ones reuse


class StepTrace(Callback):
    """Records a few steps with torch's profiler, on each rank; `profile/rank_N.json` opens in ui.perfetto.dev.

    A run that ends earlier records nothing, and prints this.
    """

    def __init__(self) -> None:
        self.recorder: profile | None = None
        self.step = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the profiler at the first step to record."""
        if self.step == FIRST:
            activities = {ProfilerActivity.CPU, ProfilerActivity.CUDA} & set(supported_activities())
            self.recorder = profile(activities=activities, record_shapes=True, profile_memory=True)
            self.recorder.start()
        self.step += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the trace after the last step to record."""
        if self.recorder is not None and self.step == FIRST + STEPS:
            self._write(trainer, self.recorder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the trace of a training that ended early, or print that there is none."""
        if self.recorder is not None:
            self._write(trainer, self.recorder)
        elif self.step <= FIRST:
            rank_zero_info(f"no trace: {self.step} training steps, expected more than {FIRST}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the profiler without writing a trace."""
        if self.recorder is not None:
            self.recorder.stop()
            self.recorder = None

    def _write(self, trainer: Trainer, recorder: profile) -> None:
        self.recorder = None
        recorder.stop()
        path = Path(trainer.default_root_dir) / FOLDER / f"rank_{trainer.global_rank}.json"
        with atomic_file(path) as draft:
            recorder.export_chrome_trace(str(draft))
        rank_zero_info(f"trace of {STEPS} steps at most: {path}, to open in ui.perfetto.dev")
