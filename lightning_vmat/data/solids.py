"""The solids that a phantom is built of, as signed distances in mm, negative inside, at points `[3, z, y, x]`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Volume = NDArray[np.float32]  # [z, y, x]
Points = NDArray[np.float32]  # [3, z, y, x]: patient x, y, z
Place = Sequence[float]  # x, y, z in mm


def ellipsoid(points: Points, centre: Place, radii: Place) -> Volume:
    """To first order near the surface: level function over the length of its gradient."""
    axes = [(points[i] - np.float32(centre[i])) / np.float32(radii[i]) for i in range(3)]
    level = np.sqrt(sum(a * a for a in axes)) + np.float32(1e-6)
    slope = np.sqrt(sum((a / np.float32(r)) ** 2 for a, r in zip(axes, radii, strict=True))) + np.float32(1e-6)
    return np.asarray(level * (level - 1) / slope, dtype=np.float32)


def capsule(points: Points, start: Place, stop: Place, radius_start: float, radius_stop: float) -> Volume:
    """A rod with round ends whose radius runs linearly from start to stop."""
    along = np.subtract(stop, start).astype(np.float32)
    offset = [points[i] - np.float32(start[i]) for i in range(3)]
    share = sum(o * a for o, a in zip(offset, along, strict=True)) / np.float32(along @ along)
    share = np.clip(share, 0.0, 1.0).astype(np.float32)
    distance = np.sqrt(sum((o - share * a) ** 2 for o, a in zip(offset, along, strict=True)))
    return np.asarray(distance - (radius_start + share * np.float32(radius_stop - radius_start)), dtype=np.float32)


def tube(points: Points, knots: NDArray[np.float64], flatness: float) -> Volume:
    """A tube along z.

    Args:
        points: where to evaluate.
        knots: rows (z, centre x, centre y, radius), z ascending; smoothly interpolated.
        flatness: how much wider (x) than deep (y) the cross-section is; 1 for a circle.
    """
    z = points[2]
    centre_x, centre_y, radius = PchipInterpolator(knots[:, 0], knots[:, 1:])(
        np.clip(z, knots[0, 0], knots[-1, 0])
    ).transpose(3, 0, 1, 2)
    across = np.hypot((points[0] - centre_x) / np.sqrt(flatness), (points[1] - centre_y) * np.sqrt(flatness)) - radius
    ends = np.maximum(knots[0, 0] - z, z - knots[-1, 0])
    return np.asarray(np.maximum(across, ends), dtype=np.float32)


def union(*solids: Volume) -> Volume:
    return reduce(np.minimum, solids)


def intersection(*solids: Volume) -> Volume:
    return reduce(np.maximum, solids)


def mirrored(points: Points) -> Points:
    """Points with x changed in sign: the same solid for the other side."""
    return points * np.array([-1, 1, 1], dtype=np.float32)[:, None, None, None]
