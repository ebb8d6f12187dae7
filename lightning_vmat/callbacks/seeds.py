"""Seeds of training that do not depend on interruptions, and differ between ranks."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_vmat.data.datamodule import SEED


class EpochSeeds(Callback):
    """Seeds torch at the start of each epoch, from the run's seed, the epoch and the rank.

    A run that is resumed at the end of an epoch therefore draws the same numbers as an uninterrupted one, and ranks,
    which start from one seed, draw different noise.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed an epoch that is resumed in its middle, which has no start, from the step as well."""
        _seed(trainer, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch for the epoch."""
        _seed(trainer)


def _seed(trainer: Trainer, *place: int) -> None:
    if SEED in os.environ:
        torch.manual_seed(hash((int(os.environ[SEED]), trainer.current_epoch, trainer.global_rank, *place)) % 2**63)
