"""Items of a cohort: as many as fit are kept in memory, the others are made again whenever a batch needs them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from monai.data import CacheDataset
from monai.transforms import Compose

from lightning_vmat.data.batch import PlanItem
from lightning_vmat.data.parallel import one_thread

Shape = tuple[int, int, int]


class CachedItems(CacheDataset):
    """Items of some cases, the first of them in memory.

    All are made by one thread each, so that an item is the same to the bit wherever it is made: ahead, in the main
    process, or in a loading process.

    Args:
        folders: folders of the cases.
        transform: chain of `item_transform`.
        kept: number of items that are kept in memory.
        progress: show a progress bar while these are made.

    Raises:
        ValueError: a case that cannot be read.
    """

    def __init__(self, folders: Sequence[Path], transform: Compose, kept: int, progress: bool = False) -> None:
        records = [{"case_dir": folder} for folder in folders]
        try:
            with one_thread():
                super().__init__(records, transform, cache_num=kept, num_workers=None, progress=progress)
        except RuntimeError as error:
            raise cause_of(error) from error

    def __getitem__(self, index: int) -> PlanItem:
        if index < self.cache_num:
            return super().__getitem__(index)  # type: ignore[no-any-return]
        return make_item(self.transform, self.data[index]["case_dir"])


def make_item(transform: Compose, folder: Path) -> PlanItem:
    """Returns the item of a case.

    Raises:
        ValueError: a case that cannot be read.
    """
    try:
        with one_thread():
            item: PlanItem = transform({"case_dir": folder})
    except RuntimeError as error:
        raise cause_of(error) from error
    return item


def cause_of(error: RuntimeError) -> Exception:
    """Returns the ValueError of a case, which MONAI wraps in "applying transform ..."; any other error as it is."""
    return error.__cause__ if isinstance(error.__cause__, ValueError) else error


def measure_item(transform: Compose, folder: Path) -> tuple[int, float]:
    """Makes the item of a case. Returns its size in bytes, and the seconds that it took."""
    start = time.perf_counter()
    item = make_item(transform, folder)
    seconds = time.perf_counter() - start
    stored = io.BytesIO()
    torch.save(item, stored)  # each storage once, as in memory
    return stored.tell(), seconds


def items_that_fit(shapes: Sequence[Shape], bytes_of: Mapping[Shape, int], budget_bytes: float) -> int:
    """Returns how many of the first items fit in memory together.

    Args:
        shapes: shape of each item's fluence maps.
        bytes_of: size of an item of each shape.
        budget_bytes: memory for the items.
    """
    used = 0
    for number, shape in enumerate(shapes):
        used += bytes_of[shape]
        if used > budget_bytes:
            return number
    return len(shapes)
