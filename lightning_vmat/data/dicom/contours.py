"""Planar contours as voxel masks: a voxel is inside if its centre is, by the even-odd rule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.plan.volume import VolumeGrid

Points = NDArray[np.float64]
PLANAR_MM = 0.1  # largest spread of a contour along z
SAME_PLANE_MM = 0.01
MOST_SKIPPED = 2  # slices between two planes of a sparsely drawn structure


def contours_mask(contours: list[Points], grid: VolumeGrid) -> NDArray[np.bool_]:
    """The voxels inside contours that lie in planes of constant z.

    Contours in one plane are combined by exclusive or, so that an inner one is a hole; a contour drawn twice counts
    once. A slice takes the nearest plane that is no farther than half the distance between slices or, for a structure
    drawn on every second or third slice only, half the distance between its planes.

    Args:
        contours: corners (x, y, z) of each contour, LPS mm; it closes from the last to the first.
        grid: voxels; contours may reach beyond.

    Raises:
        ValueError: a contour that is not finite or not planar.
    """
    mask = np.zeros(grid.shape, np.bool_)
    planes = _planes(contours)
    if not planes:
        return mask
    heights = np.array(list(planes))
    step_mm = grid.spacing_mm[2]
    reach_mm = max(step_mm, _plane_distance_mm(heights, step_mm)) / 2
    slices = grid.origin_mm[2] + step_mm * np.arange(grid.shape[0])
    offsets = heights[None, :] - slices[:, None]
    nearest = np.abs(offsets).argmin(axis=1)
    for index, plane in enumerate(nearest):
        offset = offsets[index, plane]
        if -reach_mm + SAME_PLANE_MM < offset <= reach_mm + SAME_PLANE_MM:
            mask[index] = fill(_distinct(planes[heights[plane]]), grid)
    return mask


def fill(contours: list[Points], grid: VolumeGrid) -> NDArray[np.bool_]:
    """One slice: pixels whose centres see an odd number of edges towards -x."""
    _, ny, nx = grid.shape
    toggles = np.zeros((ny, nx + 1), np.int32)
    for contour in contours:
        x, y = ((contour[:, axis] - grid.origin_mm[axis]) / grid.spacing_mm[axis] for axis in (0, 1))
        rows, crossings = _crossings(x, y, ny)
        columns = np.ceil(crossings).clip(0, nx).astype(np.int64)
        np.add.at(toggles, (rows, columns), 1)
    return np.asarray(toggles.cumsum(axis=1)[:, :nx] % 2 == 1)


def _crossings(x: Points, y: Points, row_count: int) -> tuple[NDArray[np.int64], Points]:
    """Where the edges of a polygon cross rows of pixel centres; an edge owns its upper end and not its lower."""
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    first, stop = (
        np.ceil(end).clip(0, row_count).astype(np.int64) for end in (np.minimum(y, y_next), np.maximum(y, y_next))
    )
    counts = stop - first
    edge = np.repeat(np.arange(len(x)), counts)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    slope = (x_next[edge] - x[edge]) / (y_next[edge] - y[edge])
    return rows, x[edge] + (rows - y[edge]) * slope


def _plane_distance_mm(heights: NDArray[np.float64], step_mm: float) -> float:
    """Usual distance between planes; 0 if it is too large to be more than islands."""
    distance = float(np.median(np.diff(heights))) if len(heights) > 1 else 0.0
    return distance if distance < (MOST_SKIPPED + 1.5) * step_mm else 0.0


def _planes(contours: list[Points]) -> dict[float, list[Points]]:
    """Contours by height, from inferior to superior."""
    planes: dict[float, list[Points]] = {}
    for contour in sorted(contours, key=lambda points: float(points[0, 2])):
        if not np.isfinite(contour).all():
            raise ValueError("contour with NaN or infinite coordinates")
        if np.ptp(contour[:, 2]) > PLANAR_MM:
            raise ValueError(f"contour spans {np.ptp(contour[:, 2]):.2f} mm along z, expected axial contours")
        height = float(contour[0, 2])
        below = next(reversed(planes), None)
        planes.setdefault(below if below is not None and height - below < PLANAR_MM else height, []).append(contour)
    return planes


def _distinct(contours: list[Points]) -> list[Points]:
    return list({contour.tobytes(): contour for contour in contours}.values())
