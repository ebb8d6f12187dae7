"""Influence matrices of other systems: checks, and conversion to a beamlet grid."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, load_npz

from lightning_vmat.dose.influence_check import check_influence
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.plan.beamlets import BeamletGrid

Array = NDArray[np.floating]
TOLERANCE_MM = 0.05  # positions and widths are single precision, rounded by some exporters


@dataclass(frozen=True)
class BeamletColumns:
    """The beamlet of each column of an influence matrix.

    Args:
        control_point: number of the control point, from 0.
        x_mm: centre along x_b at the isocentre plane.
        y_mm: centre along y_b.
        width_mm: width along x_b.
        height_mm: height along y_b.
    """

    control_point: NDArray[np.integer]
    x_mm: Array
    y_mm: Array
    width_mm: Array
    height_mm: Array

    def __len__(self) -> int:
        return len(self.control_point)

    def smallest_grid(self) -> BeamletGrid:
        """Returns the smallest grid that contains every column's beamlet.

        Raises:
            ValueError: beamlets of different sizes.
        """
        for name, size in (("width", self.width_mm), ("height", self.height_mm)):
            if np.ptp(size) > TOLERANCE_MM:
                raise ValueError(f"beamlet {name}s of {size.min():g} to {size.max():g} mm: expected one {name} for all")
        width, height = float(self.width_mm[0]), float(self.height_mm[0])
        rows = round(float(np.ptp(self.y_mm)) / height) + 1
        low = float(self.y_mm.min()) - height / 2
        return BeamletGrid(
            tuple(low + height * row for row in range(rows + 1)),
            float(self.x_mm.min()) - width / 2,
            width,
            round(float(np.ptp(self.x_mm)) / width) + 1,
        )

    def place(self, beamlets: BeamletGrid, control_points: int) -> NDArray[np.int64]:
        """Returns the flat index of each column's beamlet in fluence maps.

        Raises:
            ValueError: a beamlet that is not on the grid, or two columns for one beamlet.
        """
        edges, width = np.asarray(beamlets.leaf_edges_mm), beamlets.beamlet_width_mm
        row = np.searchsorted(edges, self.y_mm) - 1
        column = np.floor((self.x_mm - beamlets.beamlet_start_mm) / width).astype(np.int64)
        inside = (row >= 0) & (row < len(edges) - 1) & (column >= 0) & (column < beamlets.beamlets)
        inside &= (self.control_point >= 0) & (self.control_point < control_points)
        row, column = (np.where(inside, i, 0) for i in (row, column))
        off = np.maximum(
            np.abs(self.x_mm - beamlets.beamlet_start_mm - width * (column + 0.5)),
            np.abs(self.y_mm - (edges[row] + edges[row + 1]) / 2),
        )
        off = np.maximum(off, np.abs(self.width_mm - width))
        off = np.maximum(off, np.abs(self.height_mm - (edges[row + 1] - edges[row])))
        for bad in np.flatnonzero(~inside | (off > TOLERANCE_MM))[:1]:
            raise ValueError(
                f"column {bad}: beamlet of {self.width_mm[bad]:g} x {self.height_mm[bad]:g} mm at "
                f"({self.x_mm[bad]:g}, {self.y_mm[bad]:g}) mm of control point {self.control_point[bad]} is not on the "
                f"beamlet grid of {control_points} control points, x {beamlets.beamlet_start_mm:g} to "
                f"{beamlets.beamlet_stop_mm:g} mm by {width:g}, y {edges[0]:g} to {edges[-1]:g} mm"
            )
        flat = (self.control_point * beamlets.shape[0] + row) * beamlets.beamlets + column
        order = np.argsort(flat, kind="stable")
        for twin in np.flatnonzero(np.diff(flat[order]) == 0)[:1]:
            raise ValueError(f"columns {order[twin]} and {order[twin + 1]} belong to the same beamlet")
        return np.asarray(flat, np.int64)


@dataclass(frozen=True)
class ImportedInfluence:
    """A sparse influence matrix as its source stores it, with the beamlets of its columns.

    Args:
        matrix: dose at each row's voxel per unit of fluence in each column's beamlet, Gy per fraction.
        columns: the beamlets.
        gantry_deg: gantry angle of each control point.
    """

    matrix: csr_array
    columns: BeamletColumns
    gantry_deg: Array

    def __post_init__(self) -> None:
        if self.matrix.shape[1] != len(self.columns):
            raise ValueError(
                f"influence of {self.matrix.shape[1]} columns: expected {len(self.columns)}, one for each beamlet"
            )

    def stored(self, *, beamlets: BeamletGrid | None = None, gy_scale: float = 1.0) -> StoredInfluence:
        """Returns the operator on rectangular fluence maps; beamlets without a column give no dose.

        Args:
            beamlets: the grid of the fluence maps; the smallest one if None.
            gy_scale: factor from the matrix's dose to that of the whole course per MU per fraction: the number of
                fractions times the source's unit of fluence per MU.

        Raises:
            ValueError: a column whose beamlet is not on the grid.
        """
        grid = beamlets or self.columns.smallest_grid()
        shape = (len(self.gantry_deg), *grid.shape)
        place = self.columns.place(grid, len(self.gantry_deg))
        values = (self.matrix.data * np.float32(gy_scale)).astype(np.float32)
        parts = (values, place[self.matrix.indices], self.matrix.indptr)
        return StoredInfluence.from_scipy(csr_array(parts, shape=(self.matrix.shape[0], int(np.prod(shape)))), shape)


def read_scipy_influence(
    path: Path, fluence_shape: tuple[int, int, int], *, voxels: int | None = None
) -> StoredInfluence:
    """Reads a file of `scipy.sparse.save_npz` [voxel, flat beamlet], Gy of the whole course per MU per fraction.

    Args:
        path: the file.
        fluence_shape: (control_point, leaf_pair, beamlet).
        voxels: number of rows expected; any if None.

    Raises:
        ValueError: a missing or broken file, a matrix of another shape, or negative or non-finite dose.
    """
    try:
        with open(path, "rb") as file:
            matrix = csr_array(load_npz(file))
        matrix.check_format()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"influence file {path}: {' '.join(str(error).split())}") from error
    check_influence(matrix, f"influence file {path}", voxels=voxels, columns=int(np.prod(fluence_shape)))
    return StoredInfluence.from_scipy(matrix, fluence_shape)
