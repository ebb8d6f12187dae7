"""Points at which the solids of a phantom are evaluated, and their rotation, mirroring and smooth displacement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.phantom.portable_random import Draws

Volume = NDArray[np.float64]  # [z, y, x]
Place = Sequence[float]  # x, y, z in mm
REACH_MM = 14.0  # distances up to here are correct, larger ones are cut


@dataclass(frozen=True)
class Points:
    """Patient coordinates x, y and z in mm, a volume `[z, y, x]` for each."""

    x: Volume
    y: Volume
    z: Volume

    @property
    def axes(self) -> tuple[Volume, Volume, Volume]:
        """Coordinates x, y and z of the points, mm."""
        return self.x, self.y, self.z

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the volume of points."""
        return self.x.shape

    @cached_property
    def _bounds(self) -> list[tuple[Volume, Volume]]:
        """Smallest and largest x in each plane of equal x index, and so on."""
        others = ((0, 1), (0, 2), (1, 2))
        return [(axis.min(axis=o), axis.max(axis=o)) for axis, o in zip(self.axes, others, strict=True)]

    def block(self, low: Place, high: Place) -> tuple[slice, slice, slice]:
        """Indices of a block that contains all points between two corners."""
        x, y, z = (
            _stretch((smallest <= stop) & (largest >= start))
            for (smallest, largest), start, stop in zip(self._bounds, low, high, strict=True)
        )
        return z, y, x


def grid_points(origin_mm: Place, spacing_mm: Place, shape: tuple[int, int, int]) -> Points:
    """Voxel centres of a grid `[z, y, x]`."""
    x, y, z = (o + s * np.arange(n) for o, s, n in zip(origin_mm, spacing_mm, reversed(shape), strict=True))
    zz, yy, xx = np.meshgrid(z, y, x, indexing="ij")
    return Points(xx, yy, zz)


def mirrored(points: Points) -> Points:
    """Points mirrored at the sagittal plane: x changes sign."""
    return Points(-points.x, points.y, points.z)


def turned(points: Points, roll: float, tilt: float) -> Points:
    """Points rotated about z, then about y, by the tangents of half the angles, which need no sine."""
    x, y = _turn(points.x, points.y, roll)
    x, z = _turn(x, points.z, tilt)
    return Points(x, y, z)


def waved(points: Points, draws: Draws, amplitude_mm: float, shortest_mm: float, waves: int = 3) -> Points:
    """Points displaced by a smooth random field: along each axis a few plane waves of random directions.

    Args:
        points: points to displace.
        draws: gives directions, lengths, phases and amplitudes.
        amplitude_mm: root of the mean square displacement along each axis, about.
        shortest_mm: shortest wavelength; the longest is three times as long.
        waves: number of waves along each axis.
    """
    moved = []
    for axis in points.axes:
        for _ in range(waves):
            direction = [draws.normal() for _ in range(3)]
            steepness = math.sqrt(sum(d * d for d in direction) + 1e-6) * draws.uniform(shortest_mm, 3 * shortest_mm)
            dx, dy, dz = (d / steepness for d in direction)
            turns = points.x * dx + points.y * dy + points.z * dz + draws.uniform()
            axis = axis + draws.normal(amplitude_mm * math.sqrt(2.0 / waves)) * _sine(turns)
        moved.append(axis)
    return Points(*moved)


def _turn(one: Volume, other: Volume, half_tangent: float) -> tuple[Volume, Volume]:
    square = half_tangent * half_tangent
    cosine, sine = (1 - square) / (1 + square), 2 * half_tangent / (1 + square)
    return one * cosine - other * sine, one * sine + other * cosine


def _sine(turns: Volume) -> Volume:
    """Sine of an angle in full turns, to 0.1 %, by two parabolas."""
    part = turns - np.rint(turns)
    arch = 8.0 * part * (1.0 - 2.0 * np.abs(part))
    return np.asarray(arch * (0.775 + 0.225 * np.abs(arch)))


def _stretch(inside: NDArray[np.bool_]) -> slice:
    """From the first to the last true index."""
    index = np.flatnonzero(inside)
    return slice(int(index[0]), int(index[-1]) + 1) if len(index) else slice(0, 0)
