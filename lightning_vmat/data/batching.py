"""Batches of cases with fluence maps of one shape, distributed among the training processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import Sampler


class SameShapeBatches(Sampler[list[int]]):
    """Indices of the batches of one process, each of items of one shape. The last batch of a shape may be smaller.

    In training all processes take the same number of steps, at maps of the same shape: the items of a step are
    distributed, and repeated if there are too few for all processes. Otherwise nothing is repeated: each item
    is in one batch of one process, and processes may have different numbers of batches.

    Args:
        shapes: shape of each item.
        batch_size: largest number of items in a batch.
        training: draw new batches in a new order each epoch.
        rank: rank of this process.
        ranks: number of processes.
        seed: seed of the order, the same for all processes.
        progress: returns the epoch, and the number of its batches to skip.

    Raises:
        ValueError: fewer items than processes, except in training.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        batch_size: int,
        training: bool,
        rank: int = 0,
        ranks: int = 1,
        seed: int = 0,
        progress: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        if not training and len(shapes) < ranks:
            raise ValueError(f"{len(shapes)} cases for {ranks} devices: expected at least one case for each device")
        self.shapes, self.batch_size, self.training = list(shapes), batch_size, training
        self.rank, self.ranks = rank, ranks
        self.seed, self.progress = seed, progress

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.progress()
        batches = self._batches(epoch)
        yield from islice(batches, done % len(batches), None)

    def __len__(self) -> int:
        return len(self._batches(0))

    def _batches(self, epoch: int) -> list[list[int]]:
        if not self.training:
            mine = range(self.rank, len(self.shapes), self.ranks)
            return self._grouped(mine, self.batch_size)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(self.shapes), generator=generator).tolist()
        steps = self._grouped(order, self.batch_size * self.ranks)
        mixed = torch.randperm(len(steps), generator=generator).tolist()
        return [self._share(steps[number]) for number in mixed]

    def _grouped(self, places: Sequence[int], size: int) -> list[list[int]]:
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place in places:
            by_shape.setdefault(self.shapes[place], []).append(place)
        return [same[i : i + size] for same in by_shape.values() for i in range(0, len(same), size)]

    def _share(self, step: list[int]) -> list[int]:
        whole = step if len(step) >= self.ranks else (step * self.ranks)[: self.ranks]
        return whole[self.rank :: self.ranks]
