"""Contours of one plane as an area: nested contours are holes and islands, crossing ones are united."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Group = list[Points]
TOUCHING_MM = 0.1  # nearer borders touch; contours that cross by less are nested or beside each other
SAMPLE_MM = 1.0  # distance between the points at which borders are compared
MOST_PAIRS = 2_000_000  # pairs of points and edges at a time


def grouped(contours: list[Points], exclusive: bool = False) -> list[Group]:
    """Groups of contours. The areas of a group are united, the groups combined by exclusive or.

    A contour within another one is a hole, and one within a hole an island: even-odd. Even-odd would also remove the
    overlap of two crossing contours, which some systems export as parts of one target. Crossing contours, and contours
    that are drawn twice, therefore form one group.

    Args:
        contours: corners (x, y, z) of each contour in one plane.
        exclusive: combine all by exclusive or, as for CLOSEDPLANAR_XOR.

    Raises:
        ValueError: a contour that crosses others and lies within their union, so that it may be a hole or a part.
    """
    contours = list({contour.tobytes(): contour for contour in contours}.values())
    if exclusive or len(contours) == 1:
        return [[contour] for contour in contours]
    borders = [_border(contour) for contour in contours]
    group = list(range(len(contours)))
    for second in range(1, len(contours)):
        for first in range(second):
            if group[first] != group[second] and _united(contours, borders, first, second):
                group = [group[first] if number == group[second] else number for number in group]
    found = [[at for at, number in enumerate(group) if number == wanted] for wanted in dict.fromkeys(group)]
    for members in found:
        _check_parts(members, contours, borders)
    return [[contours[at] for at in members] for members in found]


def _united(contours: list[Points], borders: list[Points], first: int, second: int) -> bool:
    """Whether two contours cross, or have the same border."""
    low, high = (np.array([edge(contours[at][:, :2], axis=0) for at in (first, second)]) for edge in (np.min, np.max))
    if (low.max(axis=0) > high.min(axis=0)).any():
        return False
    pairs = ((borders[first], contours[second]), (borders[second], contours[first]))
    same_box = np.ptp(low, axis=0).max() <= TOUCHING_MM and np.ptp(high, axis=0).max() <= TOUCHING_MM
    if not same_box and all(inside.all() or not inside.any() for inside in (inside_contour(*pair) for pair in pairs)):
        return False
    (within, beyond), (others_within, others_beyond) = (_sides(points, contour) for points, contour in pairs)
    crossing = (within and beyond) or (others_within and others_beyond)
    return crossing or not (within or beyond or others_within or others_beyond)


def _check_parts(members: list[int], contours: list[Points], borders: list[Points]) -> None:
    """Raise if a member lies within the union of the others, but not within one of them."""
    for at in members if len(members) > 2 else []:
        others = [contours[other] for other in members if other != at]
        outside = np.array([_distance_outside(borders[at], other) > TOUCHING_MM for other in others])
        if not outside.all(axis=0).any() and outside.any(axis=1).all():
            z = contours[at][0, 2]
            raise ValueError(
                f"contours cross at z = {z:.1f} mm, and one lies in the others' union, expected a clear hole or part"
            )


def _sides(points: Points, contour: Points) -> tuple[bool, bool]:
    """Whether any points lie inside a contour, and whether any lie outside, farther than `TOUCHING_MM`."""
    inside, distance = inside_contour(points, contour), _distance(points, contour)
    far = distance > TOUCHING_MM
    return bool((inside & far).any()), bool((~inside & far).any())


def _distance_outside(points: Points, contour: Points) -> Points:
    """Distance of points from the area of a contour, mm; zero inside."""
    return np.where(inside_contour(points, contour), 0.0, _distance(points, contour))


def inside_contour(points: Points, contour: Points) -> NDArray[np.bool_]:
    """Whether points (x, y) are inside a contour, by the even-odd rule."""
    inside = np.zeros(len(points), np.bool_)
    low, high = contour[:, :2].min(axis=0), contour[:, :2].max(axis=0)
    (x0, y0), (x1, y1) = contour[:, :2].T, np.roll(contour[:, :2], -1, axis=0).T
    for at in _parts(np.flatnonzero(((points >= low) & (points <= high)).all(axis=1)), len(contour)):
        x, y = points[at, :1], points[at, 1:2]
        between = (y0 <= y) != (y1 <= y)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
        inside[at] = (between & left).sum(axis=1) % 2 == 1
    return inside


def _distance(points: Points, contour: Points) -> Points:
    """Distance of points from the border of a contour, mm."""
    start = contour[:, :2]
    edge = np.roll(start, -1, axis=0) - start
    length2 = np.maximum((edge**2).sum(axis=1), 1e-12)
    distance = np.zeros(len(points))
    for at in _parts(np.arange(len(points)), len(contour)):
        offset = points[at, None] - start
        along = ((offset * edge).sum(axis=2) / length2).clip(0, 1)
        distance[at] = np.sqrt(((offset - along[..., None] * edge) ** 2).sum(axis=2).min(axis=1))
    return distance


def _parts(places: NDArray[np.int64], edges: int) -> list[NDArray[np.int64]]:
    """Split indices of points so that arrays of points and edges stay small."""
    return np.array_split(places, 1 + len(places) * edges // MOST_PAIRS)


def _border(contour: Points) -> Points:
    """Points (x, y) along a contour, including its corners."""
    start = contour[:, :2]
    edge = np.roll(start, -1, axis=0) - start
    counts = np.ceil(np.hypot(*edge.T) / SAMPLE_MM).astype(np.int64).clip(1)
    corner = np.repeat(np.arange(len(start)), counts)
    share = (np.arange(len(corner)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[corner]
    return np.asarray(start[corner] + share[:, None] * edge[corner])
