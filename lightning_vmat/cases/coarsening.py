"""Resampling of a CT to the coarser voxels on which plans are made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from lightning_vmat.plan.volume import VolumeGrid

Box = tuple[slice, slice, slice]


def coarsening(grid: VolumeGrid, voxel_mm: float) -> tuple[int, int, int]:
    """Number of CT voxels along z, y, x in a coarse voxel of about `voxel_mm`, at least 1 each."""
    x, y, z = (max(1, round(voxel_mm / spacing)) for spacing in grid.spacing_mm)
    return z, y, x


def crop_box(mask: NDArray[np.bool_], block: tuple[int, int, int]) -> Box:
    """Smallest box of whole blocks around a mask, with a margin of one voxel where the volume has it."""
    parts = []
    for axis, size in enumerate(block):
        count = mask.shape[axis]
        inside = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = max(int(inside[0]) - 1, 0), min(int(inside[-1]) + 2, count)
        blocks = min(-(-(high - low) // size), count // size)
        low = min(low, count - blocks * size)
        parts.append(slice(low, low + blocks * size))
    z, y, x = parts
    return z, y, x


def coarse_grid(grid: VolumeGrid, box: Box, block: tuple[int, int, int]) -> VolumeGrid:
    """Grid of the blocks of a box. The centre of a block is the mean of its voxels' centres."""
    nz, ny, nx = ((part.stop - part.start) // size for part, size in zip(box, block, strict=True))
    steps = list(zip(grid.origin_mm, grid.spacing_mm, reversed(box), reversed(block), strict=True))
    x, y, z = (round(o + s * (part.start + (size - 1) / 2), 4) for o, s, part, size in steps)
    sx, sy, sz = (s * size for _, s, _, size in steps)
    return VolumeGrid((nz, ny, nx), (sx, sy, sz), (x, y, z))


def block_mean(volume: NDArray[Any], box: Box, block: tuple[int, int, int]) -> NDArray[np.float32]:
    """Mean of a volume over each block."""
    part = volume[box]
    (nz, ny, nx), (bz, by, bx) = part.shape, block
    blocks = part.reshape(nz // bz, bz, ny // by, by, nx // bx, bx)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def coarse_mask(mask: NDArray[np.bool_], box: Box, block: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Blocks of a mask, chosen by coverage so that the volume stays.

    Blocks covered by half or more would lose volume wherever a surface is convex: 2 to 7 % of a sphere
    of 10 mm radius on voxels of 4 to 5 mm. Among equally covered blocks, those
    with more of the mask around them come first.
    """
    covered = block_mean(mask, box, block)
    kept = np.asarray(covered == 1)
    partial = np.flatnonzero((covered > 0) & ~kept)
    missing = round(float(covered.ravel()[partial].sum(dtype=np.float64)))
    around = uniform_filter(covered, 3, mode="nearest").ravel()[partial]
    best = np.lexsort((-around, -covered.ravel()[partial]))[:missing]
    kept.ravel()[partial[best]] = True
    return kept
