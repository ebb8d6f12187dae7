"""Dose voxels of a PortPy patient: blocks of CT voxels, and the influence row of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.sparse import csr_array

from lightning_vmat.cases.coarsening import Box, block_mean, coarse_grid, coarse_mask
from lightning_vmat.cases.portpy.patient import PortPyPatient
from lightning_vmat.dose.imported_influence import ImportedInfluence
from lightning_vmat.plan.volume import VolumeGrid


@dataclass(frozen=True)
class Blocks:
    """Blocks of CT voxels, aligned with the runs of CT voxels that share an influence row.

    Args:
        box: range of CT voxels that are used.
        size: CT voxels in a block along z, y, x.
        ct: grid of the CT.
    """

    box: Box
    size: tuple[int, int, int]
    ct: VolumeGrid

    @classmethod
    def of(cls, patient: PortPyPatient) -> Blocks:
        """Make blocks around all voxels that are in a structure or have a row.

        Size and position are those of most runs of CT voxels with one row, along each axis. Rows that own other
        voxels, at the body's surface or because they are scattered, lend their dose to the blocks in which they lie.
        """
        rows = patient.row_of_voxel.numpy()
        used = np.logical_or.reduce([rows >= 0, *(mask.numpy() for mask in patient.structures.values())])
        parts, sizes = [], []
        for axis in range(3):
            start, size = _stretch(np.moveaxis(rows, axis, -1))
            held = np.flatnonzero(used.any(axis=tuple({0, 1, 2} - {axis})))
            low = start + max((int(held[0]) - start) // size, 0) * size
            count = min(-(-(int(held[-1]) + 1 - low) // size), (rows.shape[axis] - low) // size)
            parts.append(slice(low, low + count * size))
            sizes.append(size)
        return cls((parts[0], parts[1], parts[2]), (sizes[0], sizes[1], sizes[2]), patient.grid)

    @property
    def grid(self) -> VolumeGrid:
        """Grid of the blocks."""
        return coarse_grid(self.ct, self.box, self.size)

    def mean(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean of a CT volume over each block."""
        return block_mean(volume, self.box, self.size)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Blocks of a structure, chosen so that its volume stays."""
        return coarse_mask(mask, self.box, self.size)

    def rows(self, patient: PortPyPatient) -> NDArray[np.int64]:
        """Influence row at the centre of each block, else any row in it, else -1; flat."""
        held = patient.row_of_voxel.numpy()[self.box].astype(np.int64)
        at_middle = tuple(slice(size // 2, None, size) for size in self.size)
        middle = held[at_middle]
        largest = maximum_filter(held, self.size, mode="constant", cval=-1)[at_middle]
        return np.asarray(np.where(middle >= 0, middle, largest).ravel())


def on_voxels(influence: ImportedInfluence, rows: NDArray[np.int64]) -> ImportedInfluence:
    """The influence with a row for each voxel of the case; empty where a voxel has none."""
    there = np.flatnonzero(rows >= 0)
    picked = influence.matrix[rows[there]]
    lengths = np.zeros(len(rows), np.int64)
    lengths[there] = np.diff(picked.indptr)
    parts = (picked.data, picked.indices, np.concatenate(([0], np.cumsum(lengths))))
    matrix = csr_array(parts, shape=(len(rows), influence.matrix.shape[1]))
    return ImportedInfluence(matrix, influence.columns, influence.gantry_deg)


def _stretch(rows: NDArray[np.int32]) -> tuple[int, int]:
    """Start of the first whole run of voxels with one row along the last axis, and the most common length of a run."""
    lines = rows.reshape(-1, rows.shape[-1])
    change = np.ones((len(lines), lines.shape[1] + 1), bool)
    change[:, 1:-1] = lines[:, 1:] != lines[:, :-1]
    line, place = np.nonzero(change)
    same_line = line[1:] == line[:-1]
    line, begin, length = line[:-1][same_line], place[:-1][same_line], np.diff(place)[same_line]
    with_row = lines[line, begin] >= 0
    size = int(np.bincount(length[with_row]).argmax())
    whole = begin[with_row & (length == size)]
    return int(np.bincount(whole % size).argmax()), size
