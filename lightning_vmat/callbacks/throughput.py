"""Measures the speed of training, and the time spent waiting for data."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_vmat.data.batch import PlanBatch


class Throughput(Callback):
    """Logs for each epoch, over all ranks and without validation: cases per second, dose evaluations per second if the
    recipe makes any, the share of time spent waiting for data, and on a GPU the peak memory of a rank so far.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the counts of the epoch."""
        self.began_s = self.ready_s = time.perf_counter()
        self.waited_s, self.cases = 0.0, 0
        self.evaluations_before = getattr(pl_module, "dose_evaluations", 0)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PlanBatch, batch_idx: int
    ) -> None:
        """Add the time spent waiting for data, and count the cases of the batch."""
        if not hasattr(self, "began_s"):
            self.on_train_epoch_start(trainer, pl_module)  # an epoch resumed in its middle has no start
        self.waited_s += time.perf_counter() - self.ready_s
        self.cases += len(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PlanBatch, batch_idx: int
    ) -> None:
        """Note when the step ended."""
        self.ready_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log cases and dose evaluations per second, and the share of time spent waiting for data."""
        seconds = self.ready_s - self.began_s
        if not self.cases or seconds <= 0:
            return
        rates = {"cases_per_s": self.cases / seconds}
        evaluations = getattr(pl_module, "dose_evaluations", 0) - self.evaluations_before
        if evaluations:
            rates["dose_evaluations_per_s"] = evaluations / seconds
        for name, value in rates.items():
            pl_module.log(f"throughput/{name}", value, reduce_fx="sum", sync_dist=True, batch_size=1)
        pl_module.log("throughput/data_wait_share", self.waited_s / seconds, sync_dist=True, batch_size=1)
        if pl_module.device.type == "cuda":
            peak_gb = torch.cuda.max_memory_allocated(pl_module.device) / 1e9
            pl_module.log("throughput/peak_memory_gb", peak_gb, reduce_fx="max", batch_size=1)
