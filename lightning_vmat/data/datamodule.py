"""The data module of a cohort. Cases are prepared once and kept in memory, as far as they fit."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader

from lightning_vmat.cases.case_files import read_fluence_shape
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.batching import SameShapeBatches
from lightning_vmat.data.cached_items import CachedItems, Shape, items_that_fit, measure_item
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.data.ray_cache import RayCache
from lightning_vmat.data.transforms import item_transform
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.progress import on_terminal

BYTES_PER_GB = 1e9
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
        memory_gb: memory for prepared cases in each training process, GB. Cases that do not fit are prepared again for
            each batch; batches are the same to the bit.
        cache_dir: folder that keeps the traced rays of cases, so that later epochs and runs prepare a case in a
            fraction of the time; None traces them again.
        seed: seed of the voxel samples.
        wishes: condition the networks on the wishes of the cases too: true for those of the prostate, with 7 more
            channels, or a list of names.
        arcs: condition the networks on where arcs begin and end, with 4 more channels.
        fluence_evaluations: condition the networks on optimised fluence, with 1 more channel: the map after so many
            dose evaluations of a small problem from the open field; 0 for no such channel.
        mirror: train on mirror images, left to right, in one of two epochs of each case; for one arc that is symmetric
            about the vertical, or pairs of arcs that mirror each other.

    Raises:
        ValueError: a batch size, number of voxels, number of workers or memory out of range.
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
        wishes: bool | list[str] = False,
        arcs: bool = False,
        fluence_evaluations: int = 0,
        mirror: bool = False,
        memory_gb: float = 8.0,
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= memory_gb < math.inf:
            raise ValueError(f"memory_gb {memory_gb}: expected 0 or more GB")
        if batch_size < 1 or voxels < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size {batch_size}, voxels {voxels}, num_workers {num_workers}: expected at least 1, 1 and 0"
            )
        self.cohort = Path(cohort)
        self.mirror = mirror
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.free_bytes = memory_gb * BYTES_PER_GB
        rays = None if cache_dir is None else RayCache(Path(cache_dir))
        self.channels = ChannelSettings(structures, wishes, arcs, fluence_evaluations)
        self.transform = item_transform(self.channels, voxels, with_problems, seed, rays)
        self.measured: dict[Shape, tuple[int, float]] = {}  # bytes and seconds of an item, by the shape of its maps
        self.shapes: dict[str, list[Shape]] = {}
        self.datasets: dict[str, CachedItems] = {}

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
                self._load(part, cohort.folders(part))

    def _load(self, part: str, folders: list[Path]) -> None:
        shapes = [read_fluence_shape(folder) for folder in folders]
        for shape, folder in zip(shapes, folders, strict=True):
            if shape not in self.measured:
                self.measured[shape] = measure_item(self.transform, folder)
        bytes_of = {shape: size for shape, (size, _) in self.measured.items()}
        kept = items_that_fit(shapes, bytes_of, self.free_bytes)
        self.free_bytes -= sum(bytes_of[shape] for shape in shapes[:kept])
        if kept < len(folders):
            seconds = sum(self.measured[shape][1] for shape in shapes[kept:]) / (len(folders) - kept)
            rank_zero_info(
                f"cohort {self.cohort}, {part}: {kept} of {len(folders)} cases fit in data.memory_gb; the others are "
                f"prepared for each batch, {seconds:.2g} s a case (data.num_workers, data.cache_dir: faster)"
            )
        self.shapes[part] = shapes
        bar = kept > 4 and on_terminal(sys.stderr)
        self.datasets[part] = CachedItems(folders, self.transform, kept, progress=bar)

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

    def on_after_batch_transfer(self, batch: PlanBatch, dataloader_idx: int) -> PlanBatch:
        """Mirrors each second case of a training batch; in the next epoch the others."""
        if not self.mirror or self.trainer is None or not self.trainer.training:
            return batch
        return batch.mirrored_in(self.trainer.current_epoch)

    def _loader(self, part: str, training: bool = False) -> DataLoader[PlanBatch]:
        dataset = self.datasets[part]
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        seed = int(os.environ.get(SEED, 0))
        progress = self._progress if training else at_the_start
        try:
            batches = SameShapeBatches(self.shapes[part], self.batch_size, training, rank, ranks, seed, progress)
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
