"""One beam of a PortPy patient: beamlets (all, or those that see the target) and columns of the influence matrix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csc_array, csr_array, hstack

from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.dose.imported_influence import BeamletColumns
from lightning_vmat.dose.influence_check import check_influence

Array = NDArray[np.floating]
MARGIN_MM = 3.0  # margin around the target's outline
TRIPLETS = 1 << 20  # read at once
DENSE_VALUES = 1 << 23  # of a full matrix, read at once


@dataclass(frozen=True)
class PortPyBeam:
    """A beam, and the beamlets of its columns.

    Args:
        beam_id: PortPy's number.
        gantry_deg: gantry angle.
        collimator_deg: collimator angle.
        couch_deg: patient support angle.
        isocentre_mm: patient LPS.
        sad_mm: source-axis distance.
        beamlet: position of each column's beamlet in the beam's stored arrays.
    """

    beam_id: int
    gantry_deg: float
    collimator_deg: float
    couch_deg: float
    isocentre_mm: tuple[float, float, float]
    sad_mm: float
    beamlet: NDArray[np.int64]


def read_beam(
    files: PortPyFolder, about: dict[str, Any], number: int, *, rows: int, full: bool, target: str | None
) -> tuple[PortPyBeam, csr_array, BeamletColumns]:
    """A beam, its columns of the matrix, and their beamlets.

    Args:
        files: the patient's.
        about: the beam's metadata.
        number: number of its control point.
        rows: number of rows of the matrix.
        full: the full matrix instead of the thresholded one.
        target: see `read_portpy`.
    """
    where = files.folder / "Beams" / f"Beam_{about.get('ID')}_MetaData.json"
    try:
        stored = [
            np.asarray(files.array(about["beamlets"], f"{name}_File", where), float).ravel()
            for name in ("position_x_mm", "position_y_mm", "width_mm", "height_mm")
        ]
        isocentre_x, isocentre_y, isocentre_z = (float(about["iso_center"][f"{axis}_mm"]) for axis in "xyz")
        gantry, collimator, couch = (float(about[f"{name}_angle"]) for name in ("gantry", "collimator", "couch"))
        beam_id, sad_mm = int(about["ID"]), float(about["SAD_mm"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: key {error} missing, expected PortPy's layout") from error
    if len({len(values) for values in stored}) != 1:
        raise ValueError(f"{where}: beamlet arrays of lengths {[len(v) for v in stored]}, expected one length")
    chosen = np.arange(len(stored[0]))
    if target is not None:
        with files.dataset(about, "BEV_structure_contour_points_File", where) as group:
            if target not in group:
                raise ValueError(f"no outline of {target} in the beam's-eye view")
            outlines = [np.asarray(segment[()], float) for segment in group[target].values()]
        chosen = np.flatnonzero(_sees(stored[0], stored[1], outlines))
    matrix = (_read_full if full else _read_sparse)(files, about, where, (rows, len(stored[0])))
    check_influence(matrix, str(where))
    beam = PortPyBeam(beam_id, gantry, collimator, couch, (isocentre_x, isocentre_y, isocentre_z), sad_mm, chosen)
    columns = BeamletColumns(np.full(len(chosen), number), *(values[chosen] for values in stored))
    return beam, csr_array(matrix[:, chosen]), columns


def _sees(x_mm: Array, y_mm: Array, outlines: list[Array]) -> NDArray[np.bool_]:
    """Beamlets with centres in an outline grown by the margin; in each row all from the first to the last one."""
    inside = np.zeros(len(x_mm), bool)
    for outline in outlines:
        inside |= _in_grown(np.stack((x_mm, y_mm), axis=-1), outline)
    for y in np.unique(y_mm[inside]):
        row = y_mm == y
        inside |= row & (x_mm >= x_mm[row & inside].min()) & (x_mm <= x_mm[row & inside].max())
    return inside


def _in_grown(points: Array, outline: Array) -> NDArray[np.bool_]:
    """Points within a polygon (even-odd) or nearer to its edge than the margin."""
    start, stop = outline, np.roll(outline, -1, axis=0)
    edge = stop - start
    towards = points[:, None] - start
    length = np.maximum((edge**2).sum(axis=-1), 1e-12)
    share = np.clip((towards * edge).sum(axis=-1) / length, 0, 1)
    near = (np.linalg.norm(towards - share[..., None] * edge, axis=-1) < MARGIN_MM).any(axis=1)
    straddles = (start[:, 1] > points[:, None, 1]) != (stop[:, 1] > points[:, None, 1])
    rise = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
    crosses = straddles & (points[:, None, 0] < start[:, 0] + towards[..., 1] / rise * edge[:, 0])
    return np.asarray(near | (crosses.sum(axis=1) % 2 == 1))


def _read_sparse(files: PortPyFolder, about: dict[str, Any], where: Path, shape: tuple[int, int]) -> csc_array:
    """Triplets of row, column and value; the last may be a zero that only tells the shape."""
    with files.dataset(about, "influenceMatrixSparse_File", where) as dataset:
        count = dataset.shape[0]
        row, column = np.empty(count, np.int32), np.empty(count, np.int32)
        value = np.empty(count, np.float32)
        for first in range(0, count, TRIPLETS):
            part = slice(first, min(first + TRIPLETS, count))
            row[part], column[part], value[part] = dataset[part].T
    for index, size, what in ((row, shape[0], "row"), (column, shape[1], "column")):
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= size):
            raise ValueError(f"{where}: influence at {what} {index.min()} to {index.max()}, expected 0 to {size - 1}")
    matrix = coo_array((value, (row, column)), shape=shape).tocsc()
    matrix.eliminate_zeros()
    return matrix


def _read_full(files: PortPyFolder, about: dict[str, Any], where: Path, shape: tuple[int, int]) -> csc_array:
    """A dense matrix, read some columns at a time."""
    with files.dataset(about, "influenceMatrixFull_File", where) as dataset:
        if tuple(dataset.shape) != shape:
            raise ValueError(f"full influence of shape {tuple(dataset.shape)}, expected {shape}")
        step = max(1, DENSE_VALUES // shape[0])
        parts = [csc_array(np.asarray(dataset[:, i : i + step], np.float32)) for i in range(0, shape[1], step)]
    return csc_array(hstack(parts, format="csc"))
