"""Batches of cases whose fluence maps have one shape, from a cohort whose cases have several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class SameShapeBatches(Sampler[list[int]]):
    """Indices of batches, each of items of one shape; the last batch of a shape may be smaller.

    Args:
        shapes: of each item.
        batch_size: most items in a batch.
        shuffle: draw other batches in another order each time.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], batch_size: int, shuffle: bool) -> None:
        self.shapes, self.batch_size, self.shuffle = list(shapes), batch_size, shuffle

    def __iter__(self) -> Iterator[list[int]]:
        batches = [
            places[i : i + self.batch_size]
            for places in self._places_by_shape()
            for i in range(0, len(places), self.batch_size)
        ]
        order = torch.randperm(len(batches)).tolist() if self.shuffle else range(len(batches))
        yield from (batches[number] for number in order)

    def __len__(self) -> int:
        return sum(-(-len(places) // self.batch_size) for places in self._places_by_shape())

    def _places_by_shape(self) -> list[list[int]]:
        order = torch.randperm(len(self.shapes)).tolist() if self.shuffle else range(len(self.shapes))
        places: dict[tuple[int, ...], list[int]] = {}
        for place in order:
            places.setdefault(self.shapes[place], []).append(place)
        return list(places.values())
