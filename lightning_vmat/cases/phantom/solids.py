"""The solids that a phantom is built of, as signed distances in mm, negative inside.

Only +, -, x, /, square roots, roundings and comparisons of double precision, one at a time: IEEE 754 rounds these in
one way only, so that a phantom has the same bits on every machine. No sums over axes, matrix products, sines or powers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.phantom.coordinates import REACH_MM, Place, Points, Volume

SMOOTHINGS = 60  # of a tube's axis: rounds its corners over about 8 mm
FAR_MM = 100.0  # the distance that solids give where they are beyond reach


def ellipsoid(points: Points, centre: Place, radii: Place) -> Volume:
    """An ellipsoid; its distance is correct to first order near the surface (level function over its gradient)."""
    out = np.full(points.shape, FAR_MM)
    reach = [r + REACH_MM for r in radii]
    block = points.block(
        [c - r for c, r in zip(centre, reach, strict=True)], [c + r for c, r in zip(centre, reach, strict=True)]
    )
    axes = [(p[block] - c) / r for p, c, r in zip(points.axes, centre, radii, strict=True)]
    level = length(axes) + 1e-6
    out[block] = level * (level - 1) / (length([a / r for a, r in zip(axes, radii, strict=True)]) + 1e-6)
    return out


def chain(points: Points, places: Sequence[Place], radii: Sequence[float]) -> Volume:
    """A chain of rods with round ends; the radius changes linearly from one place to the next."""
    out = np.full(points.shape, FAR_MM)
    for start, stop, one, other in zip(places[:-1], places[1:], radii[:-1], radii[1:], strict=True):
        reach = max(one, other) + REACH_MM
        ends = list(zip(start, stop, strict=True))
        block = points.block([min(pair) - reach for pair in ends], [max(pair) + reach for pair in ends])
        along = [b - a for a, b in ends]
        offset = [p[block] - a for p, a in zip(points.axes, start, strict=True)]
        share = offset[0] * along[0] + offset[1] * along[1] + offset[2] * along[2]
        share = np.clip(share / (along[0] * along[0] + along[1] * along[1] + along[2] * along[2]), 0.0, 1.0)
        distance = length([o - share * a for o, a in zip(offset, along, strict=True)])
        out[block] = np.minimum(out[block], distance - (one + share * (other - one)))
    return out


def tube(points: Points, knots: Sequence[Sequence[float]], flatness: float) -> Volume:
    """A smooth tube along z.

    Args:
        points: points at which to evaluate the distance.
        knots: (z, centre x, centre y, radius), z ascending.
        flatness: how much wider (x) than deep (y) the cross-section is; 1 for a circle.
    """
    low, high, z = knots[0][0], knots[-1][0], points.z
    centre_x, centre_y, radius = (_look_up(_axis(knots, column), z - low) for column in (1, 2, 3))
    root = math.sqrt(flatness)
    across = length([(points.x - centre_x) / root, (points.y - centre_y) * root]) - radius
    return np.maximum(across, np.maximum(low - z, z - high))


def union(*solids: Volume) -> Volume:
    """Points inside at least one of the solids."""
    return reduce(np.minimum, solids)


def intersection(*solids: Volume) -> Volume:
    """Points inside all of the solids."""
    return reduce(np.maximum, solids)


def length(parts: Sequence[Volume]) -> Volume:
    """Length of vectors given by their components."""
    return np.asarray(np.sqrt(reduce(np.add, (part * part for part in parts))))


def cube_root(number: float) -> float:
    """Cube root of a positive number, by a fixed number of Newton's iterations."""
    root = 1.0
    for _ in range(80):
        root = (2.0 * root + number / (root * root)) / 3.0
    return root


def _axis(knots: Sequence[Sequence[float]], column: int) -> NDArray[np.float64]:
    """One column of the knots at every mm of z, with rounded corners and unchanged ends."""
    values: list[float] = []
    for lower, upper in pairwise(knots):
        while (place := knots[0][0] + len(values)) <= upper[0]:
            share = (place - lower[0]) / (upper[0] - lower[0])
            values.append(lower[column] + share * (upper[column] - lower[column]))
    table = np.asarray(values)
    for _ in range(SMOOTHINGS):
        table[1:-1] = (table[:-2] + table[2:]) * 0.25 + table[1:-1] * 0.5
    return table


def _look_up(table: NDArray[np.float64], place: Volume) -> Volume:
    """Linear interpolation of a table with one entry a mm."""
    place = np.clip(place, 0.0, len(table) - 1.001)
    lower = place.astype(np.int64)
    share = place - lower
    return np.asarray(table[lower] * (1.0 - share) + table[lower + 1] * share)
