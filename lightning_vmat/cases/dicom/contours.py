"""Planar contours as voxel masks. A voxel is inside if its centre is inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.dicom.contour_groups import Points
from lightning_vmat.cases.dicom.contour_slabs import Slab, runs, slabs
from lightning_vmat.plan.volume import VolumeGrid

TIE_MM = 0.0137  # a slice half-way between two planes takes the upper one, also with rounded positions


def contours_mask(contours: list[Points], grid: VolumeGrid, exclusive: bool = False) -> NDArray[np.bool_]:
    """Mask of the voxels inside contours in planes of constant z.

    Each slice takes the contours of the slab that contains its centre (see `slabs`), combined by `grouped`: an inner
    contour is a hole, crossing ones are united, one drawn twice counts once.

    Args:
        contours: corners (x, y, z) of each contour, LPS mm; it closes from the last to the first.
        grid: voxels; contours may reach beyond.
        exclusive: combine all contours of a plane by exclusive or.

    Raises:
        ValueError: a contour that is not finite or not planar, or contours that are too sparse or ambiguous.
    """
    return slabs_mask(slabs(contours, grid.spacing_mm[2], exclusive), grid)


def slabs_mask(found: list[Slab], grid: VolumeGrid) -> NDArray[np.bool_]:
    """Mask of the voxels with centres inside slabs. A run of slabs between two slices goes to the nearer slice."""
    mask = np.zeros(grid.shape, np.bool_)
    step_mm = grid.spacing_mm[2]
    heights = grid.origin_mm[2] + step_mm * np.arange(grid.shape[0])
    for run in runs(found):
        lows = np.array([slab.low_mm for slab in run])
        at = np.searchsorted(lows, heights + TIE_MM, side="right") - 1
        held = np.flatnonzero((at >= 0) & (heights + TIE_MM < run[-1].high_mm))
        if len(held) == 0:
            offsets = np.abs(heights - (run[0].low_mm + run[-1].high_mm) / 2)
            held = np.flatnonzero(offsets == offsets.min())[:1]
            held = held[offsets[held] <= step_mm / 2]
        for index in held:
            mask[index] |= fill_groups(run[max(int(at[index]), 0)], grid)
    return mask


def fill_groups(slab: Slab, grid: VolumeGrid) -> NDArray[np.bool_]:
    """Mask of one slice of a slab: the areas of a group are united, the groups combined by exclusive or."""
    area = fill([group[0] for group in slab.groups if len(group) == 1], grid)
    for group in slab.groups:
        if len(group) > 1:
            area ^= np.any([fill([contour], grid) for contour in group], axis=0)
    return area


def fill(contours: list[Points], grid: VolumeGrid) -> NDArray[np.bool_]:
    """Mask of one slice: pixels whose centres have an odd number of edges towards -x."""
    _, ny, nx = grid.shape
    toggles = np.zeros((ny, nx + 1), np.int32)
    for contour in contours:
        x, y = ((contour[:, axis] - grid.origin_mm[axis]) / grid.spacing_mm[axis] for axis in (0, 1))
        rows, crossings = _crossings(x, y, ny)
        columns = np.ceil(crossings).clip(0, nx).astype(np.int64)
        np.add.at(toggles, (rows, columns), 1)
    return np.asarray(toggles.cumsum(axis=1)[:, :nx] % 2 == 1)


def _crossings(x: Points, y: Points, row_count: int) -> tuple[NDArray[np.int64], Points]:
    """Crossings of polygon edges with rows of pixel centres; an edge includes its upper end, not its lower one."""
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    first, stop = (
        np.ceil(end).clip(0, row_count).astype(np.int64) for end in (np.minimum(y, y_next), np.maximum(y, y_next))
    )
    counts = stop - first
    edge = np.repeat(np.arange(len(x)), counts)
    rows = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    slope = (x_next[edge] - x[edge]) / (y_next[edge] - y[edge])
    return rows, x[edge] + (rows - y[edge]) * slope
