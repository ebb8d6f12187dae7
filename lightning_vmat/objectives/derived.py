"""Structures that a protocol makes from others: union, intersection, difference, and margins in mm.

In the protocol's YAML:

    structures:
      PTV: {expand: CTV, margin_mm: [7, 7, 5]} # along x (left-right), y (anterior-posterior), z (superior-inferior)
      PTVBoost: {expand: GTV, margin_mm: 3} # to all sides
      PTVProstate: {expand: CTV, margin_mm: {left: 7, right: 7, anterior: 7, posterior: 5, superior: 7, inferior: 7}}
      Core: {contract: PTV, margin_mm: 5}
      RectumOutside: {difference: [Rectum, PTV]} # the first less all others
      FemoralHeads: {union: [FemoralHeadLeft, FemoralHeadRight]}
      Overlap: {intersection: [PTV, Rectum]}

A structure may be made from made ones, in any order. A structure of the patient by the name of a made one is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid

Mask = NDArray[np.bool_]
SIDES = ("right", "left", "anterior", "posterior", "inferior", "superior")  # low and high x, y, z in LPS
COMBINATIONS: dict[str, Callable[[Mask, Mask], Mask]] = {
    "union": lambda one, other: one | other,
    "intersection": lambda one, other: one & other,
    "difference": lambda one, other: one & ~other,
}
MARGINS = ("expand", "contract")
MAX_MARGIN_MM = 100.0


@dataclass(frozen=True)
class DerivedStructure:
    """How a structure is made.

    Args:
        name: of the structure.
        operation: `union`, `intersection`, `difference`, `expand` or `contract`.
        sources: structures it is made from, in order.
        margin_mm: of `expand` and `contract`, to the right, left, anterior, posterior, inferior, superior side; between
            the sides the border is an ellipsoid's, as in planning systems.
    """

    name: str
    operation: str
    sources: tuple[str, ...]
    margin_mm: tuple[float, ...] = ()

    def __str__(self) -> str:
        if not self.margin_mm:
            return f"{self.operation} of {', '.join(self.sources)}"
        margins = ", ".join(f"{side} {margin:g}" for side, margin in zip(SIDES, self.margin_mm, strict=True))
        return f"{self.operation} {self.sources[0]} by {margins} mm"

    def mask(self, masks: Mapping[str, Mask], grid: VolumeGrid) -> Mask:
        """The structure on the grid of its sources' masks, to the nearest voxel."""
        first, *others = (masks[name] for name in self.sources)
        if self.operation == "expand":
            return expanded(first, grid, self.margin_mm)
        if self.operation == "contract":
            return contracted(first, grid, self.margin_mm)
        for other in others:
            first = COMBINATIONS[self.operation](first, other)
        return first


def parse_derived(section: object) -> tuple[DerivedStructure, ...]:
    """The `structures` section of a protocol, each after those it is made from.

    Raises:
        ValueError: what is wrong with an entry, by name.
    """
    if not isinstance(section, dict):
        raise ValueError(f"structures: got {section!r}, expected names with how they are made")
    waiting = {str(name): _parse(f"structures.{name}", str(name), entry) for name, entry in section.items()}
    ordered: list[DerivedStructure] = []
    while waiting:
        ready = [one for one in waiting.values() if not set(one.sources) & waiting.keys()]
        if not ready:
            raise ValueError(f"structures: {', '.join(waiting)} are made from one another, expected no circle")
        ordered += ready
        waiting = {name: one for name, one in waiting.items() if one not in ready}
    return tuple(ordered)


def sources_of(derived: tuple[DerivedStructure, ...]) -> list[str]:
    """Structures that are not made, from which all others are."""
    made = {one.name for one in derived}
    return list(dict.fromkeys(name for one in derived for name in one.sources if name not in made))


def make_derived(derived: tuple[DerivedStructure, ...], masks: Mapping[str, Mask], grid: VolumeGrid) -> dict[str, Mask]:
    """The structures whose sources are there; those whose sources are missing are left out."""
    found = {name: mask for name, mask in masks.items() if name not in {one.name for one in derived}}
    made = {}
    for one in derived:
        if set(one.sources) <= found.keys():
            found[one.name] = made[one.name] = one.mask(found, grid)
    return made


def with_derived(case: Case, derived: tuple[DerivedStructure, ...]) -> Case:
    """A case with the structures that a protocol makes, made on its own grid."""
    made = make_derived(derived, {name: mask.cpu().numpy() for name, mask in case.structures.items()}, case.grid)
    return case.with_settings(structures={**case.structures, **{n: torch.from_numpy(m) for n, m in made.items()}})


def expanded(mask: Mask, grid: VolumeGrid, margin_mm: tuple[float, ...]) -> Mask:
    """A mask grown by an ellipsoid whose half-axes are the margins to each side.

    The border of a mask lies half a voxel beyond its outermost centres, so half a voxel is added to each half-axis:
    margins are rounded to the nearest voxel, not down.

    Args:
        mask: what to grow.
        grid: its voxels.
        margin_mm: to each of `SIDES`.
    """
    ball = _ellipsoid(grid, margin_mm)
    return _grown(mask, ball, _box(mask, ball.shape))


def contracted(mask: Mask, grid: VolumeGrid, margin_mm: tuple[float, ...]) -> Mask:
    """A mask from whose sides the margins are taken away: what lies around it grows. At the grid's faces it stays."""
    right, left, anterior, posterior, inferior, superior = margin_mm
    ball = _ellipsoid(grid, (left, right, posterior, anterior, superior, inferior))
    return ~_grown(~mask, ball, _box(mask, ball.shape))


def _grown(mask: Mask, ball: Mask, box: tuple[slice, ...]) -> Mask:
    """A mask grown within a part of the grid."""
    grown = mask.copy()
    padded = np.pad(mask[box].astype(np.float32), [(length // 2, length // 2) for length in ball.shape])
    grown[box] |= fftconvolve(padded, ball.astype(np.float32), mode="valid") > 0.5
    return grown


def _box(mask: Mask, ball: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of the grid that a mask can reach."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if len(places[0]) == 0:
        return slice(0, 1), slice(0, 1), slice(0, 1)
    return tuple(
        slice(max(int(place[0]) - length // 2, 0), int(place[-1]) + length // 2 + 1)
        for place, length in zip(places, ball, strict=True)
    )


def _ellipsoid(grid: VolumeGrid, margin_mm: tuple[float, ...]) -> Mask:
    """Which voxels around the middle one are reached from it."""
    shares = []
    for axis, spacing in enumerate(grid.spacing_mm):
        low, high = margin_mm[2 * axis], margin_mm[2 * axis + 1]
        count = int(max(low, high) / spacing + 0.5)
        offset = spacing * np.arange(-count, count + 1)
        shares.append(np.where(offset < 0, offset / (low + spacing / 2), offset / (high + spacing / 2)) ** 2)
    x, y, z = shares
    return np.asarray(z[:, None, None] + y[:, None] + x <= 1 + 1e-9)


def _parse(where: str, name: str, entry: object) -> DerivedStructure:
    operations = (*COMBINATIONS, *MARGINS)
    if not isinstance(entry, dict) or len(entry.keys() & set(operations)) != 1:
        raise ValueError(f"{where}: got {entry!r}, expected exactly one of {', '.join(operations)}")
    [operation] = entry.keys() & set(operations)
    allowed = {operation, "margin_mm"} if operation in MARGINS else {operation}
    if entry.keys() - allowed:
        raise ValueError(f"{where}: unknown key {sorted(map(str, entry.keys() - allowed))[0]!r}")
    sources = entry[operation]
    if operation in MARGINS:
        if not isinstance(sources, str) or "margin_mm" not in entry:
            raise ValueError(f"{where}: got {entry!r}, expected one structure and margin_mm")
        return DerivedStructure(name, operation, (sources,), _margins(f"{where}.margin_mm", entry["margin_mm"]))
    if not isinstance(sources, list) or len(sources) < 2 or not all(isinstance(one, str) for one in sources):
        raise ValueError(f"{where}.{operation}: got {sources!r}, expected a list of at least two structures")
    return DerivedStructure(name, operation, tuple(sources))


def _margins(where: str, value: Any) -> tuple[float, ...]:
    """Margins to each of `SIDES` from one number, three along x, y, z, or one for each side."""
    if isinstance(value, dict):
        if set(value) != set(SIDES):
            raise ValueError(f"{where}: got sides {sorted(map(str, value))}, expected {', '.join(SIDES)}")
        values = [value[side] for side in SIDES]
    elif isinstance(value, list) and len(value) == 3:
        values = [one for one in value for _ in range(2)]
    else:
        values = [value] * 6
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= MAX_MARGIN_MM:
            raise ValueError(
                f"{where}: got {value!r}, expected 0 to {MAX_MARGIN_MM:g} mm: one number, three along x, y, z, or one "
                "for each side"
            )
    return tuple(float(one) for one in values)
