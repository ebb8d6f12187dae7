"""Random numbers of training that do not depend on when it was stopped, and differ between ranks."""

from __future__ import annotations

import os

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_vmat.data.datamodule import SEED


class EpochSeeds(Callback):
    """Seeds torch anew at the start of each epoch, by the run's seed, the epoch and the rank.

    So a run that goes on from a checkpoint of an epoch's end draws what an uninterrupted one draws, and ranks, all of
    which begin from one seed, draw different noise.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch that goes on from its middle has no start: the step tells its turns apart."""
        _seed(trainer, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed torch for the epoch."""
        _seed(trainer)


def _seed(trainer: Trainer, *place: int) -> None:
    if SEED in os.environ:
        torch.manual_seed(hash((int(os.environ[SEED]), trainer.current_epoch, trainer.global_rank, *place)) % 2**63)
