"""The data module of a cohort. Cases are prepared once and then kept in memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from lightning import LightningDataModule
from monai.data import CacheDataset
from torch.utils.data import DataLoader

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.batching import SameShapeBatches
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.data.transforms import item_transform
from lightning_vmat.progress import on_terminal

SEED = "PL_GLOBAL_SEED"  # environment variable that `seed_everything` sets
PARTS = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ("test",)}


class CohortDataModule(LightningDataModule):
    """Batches of `PlanBatch` from a cohort.

    Args:
        cohort: folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one (whose cases are made in
            the cache folder at the first use).
        batch_size: cases in a batch on each device; the fluence maps of a batch have one shape.
        structures: structures whose thickness in the beam's-eye view conditions the networks, in channel order.
        voxels: size of the voxel sample of a planning problem.
        with_problems: give each batch its planning problems, to compute dose and objective.
        num_workers: loading processes; 0 loads in the main process, which is best while cases fit in memory.
        seed: seed of the voxel samples.
        wishes: condition the networks on the wishes of the cases too, with 7 more channels.

    Raises:
        ValueError: a batch size, number of voxels or number of workers out of range.
    """

    def __init__(
        self,
        cohort: Path,
        structures: list[str],
        batch_size: int = 1,
        voxels: int = 15_000,
        with_problems: bool = False,
        num_workers: int = 0,
        seed: int = 0,
        wishes: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or voxels < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size {batch_size}, voxels {voxels}, num_workers {num_workers}: expected at least 1, 1 and 0"
            )
        self.cohort = Path(cohort)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.transform = item_transform(structures, voxels, with_problems, seed, wishes)
        self.datasets: dict[str, CacheDataset] = {}

    def prepare_data(self) -> None:
        """Unpack a packed cohort, in one process only."""
        unpacked(self.cohort)

    def setup(self, stage: str) -> None:
        """Load and prepare the cases that the stage needs.

        Raises:
            ValueError: no such cohort, no cases for the stage, or a case that cannot be read.
        """
        cohort = read_cohort(unpacked(self.cohort))
        for part in PARTS[stage]:
            if part not in self.datasets:
                self.datasets[part] = self._load(cohort.folders(part))

    def _load(self, folders: list[Path]) -> CacheDataset:
        records = [{"case_dir": folder} for folder in folders]
        bar = len(records) > 4 and on_terminal(sys.stderr)
        try:
            return CacheDataset(records, self.transform, num_workers=None, progress=bar)
        except RuntimeError as error:  # MONAI wraps the error of a case in "applying transform ..."
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from error
            raise

    def train_dataloader(self) -> DataLoader[PlanBatch]:
        """Batches of the training cases, shuffled anew in each epoch."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[PlanBatch]:
        """Batches of the validation cases, in order."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[PlanBatch]:
        """Batches of the test cases, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[PlanBatch]:
        """Batches of the test cases, in order."""
        return self._loader("test")

    def _loader(self, part: str, training: bool = False) -> DataLoader[PlanBatch]:
        dataset = self.datasets[part]
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        shapes = [tuple(item.condition.shape) for item in dataset]
        seed = int(os.environ.get(SEED, 0))
        progress = self._progress if training else at_the_start
        try:
            batches = SameShapeBatches(shapes, self.batch_size, training, rank, ranks, seed, progress)
        except ValueError as error:
            raise ValueError(f"cohort {self.cohort}, {part}: {error}") from error
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=PlanBatch.collate,
            generator=torch.Generator().manual_seed(seed),  # its own: leaves that of training alone
        )

    def _progress(self) -> tuple[int, int]:
        """The epoch of the trainer, and the number of its batches that are done."""
        if self.trainer is None:
            return at_the_start()
        return self.trainer.current_epoch, self.trainer.fit_loop.epoch_loop.batch_progress.current.ready


def at_the_start() -> tuple[int, int]:
    """Progress at the start of training: epoch 0, no batch done."""
    return 0, 0
