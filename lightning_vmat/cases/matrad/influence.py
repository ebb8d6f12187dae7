"""Reader of matRad's and pyRadPlan's dose influence (`dij` and `stf` in a `.mat` file)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from lightning_vmat.cases.matrad.mat_files import read_mat
from lightning_vmat.dose.imported_influence import BeamletColumns, ImportedInfluence
from lightning_vmat.dose.influence_check import check_influence
from lightning_vmat.plan.volume import VolumeGrid


@dataclass(frozen=True)
class MatradInfluence:
    """A matRad influence matrix with rows in our order.

    Args:
        influence: rows are the voxels of the dose grid, flat C-order of [z, y, x].
        grid: the dose grid, patient LPS.
        couch_deg: patient support angle of each beam.
        isocentre_mm: of the first beam.
    """

    influence: ImportedInfluence
    grid: VolumeGrid
    couch_deg: NDArray[np.float64]
    isocentre_mm: tuple[float, float, float]


def read_matrad_influence(path: Path) -> MatradInfluence:
    """Read `dij` and `stf` from a `.mat` file of any version; the matrix stays sparse all the way.

    Raises:
        ValueError: a file that is missing, broken or without one of the two, a matrix that disagrees with its grid or
            its beamlets, or dose that cannot be.
    """
    where = f"matRad file {path}"
    contents = read_mat(path, ("dij", "stf"))
    try:
        dij, beams = contents["dij"], _records(contents["stf"])
        matrix = dij["physicalDose"]
        matrix = csc_array(matrix[0] if isinstance(matrix, list) else matrix)
        grid = _grid(dij["doseGrid"])
        beam, ray = (np.atleast_1d(np.asarray(dij[name], dtype=float)).astype(int) for name in ("beamNum", "rayNum"))
        if len(beam) and beam.min() == 1:  # matRad counts from 1, pyRadPlan from 0
            beam, ray = beam - 1, ray - 1
        columns = _columns(beams, beam, ray)
        angles = [np.asarray([float(b[name]) for b in beams]) for name in ("gantryAngle", "couchAngle")]
        x, y, z = (float(v) for v in np.asarray(beams[0]["isoCenter"], dtype=float).ravel()[:3])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{where}: expected dij and stf of matRad ({type(error).__name__}: {error})") from error
    except ValueError as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    rows = _c_order(matrix, grid)
    check_influence(rows, where, voxels=grid.voxel_count, columns=len(columns))
    return MatradInfluence(ImportedInfluence(rows, columns, angles[0]), grid, angles[1], (x, y, z))


def _records(value: Any) -> list[dict[str, Any]]:
    """A struct array as one dict each: v7 gives a list of structs, v7.3 a struct of lists."""
    if isinstance(value, list):
        return value
    if all(isinstance(field, list) for field in value.values()):
        return [dict(zip(value, fields, strict=True)) for fields in zip(*value.values(), strict=True)]
    return [value]


def _grid(stored: dict[str, Any]) -> VolumeGrid:
    """matRad numbers voxels over [y, x, z]; x, y, z are the centres' coordinates."""
    x, y, z = (np.atleast_1d(np.asarray(stored[axis], dtype=float)) for axis in "xyz")
    spacing = stored["resolution"]
    return VolumeGrid(
        (len(z), len(y), len(x)),
        (float(spacing["x"]), float(spacing["y"]), float(spacing["z"])),
        (float(x[0]), float(y[0]), float(z[0])),
    )


def _columns(beams: list[dict[str, Any]], beam: NDArray[np.int_], ray: NDArray[np.int_]) -> BeamletColumns:
    """Positions of the rays that the columns name; every beamlet is a square of the beam's width."""
    places, first = [], [0]
    for number, one in enumerate(beams):
        rays = [np.asarray(r["rayPos_bev"], dtype=float).ravel() for r in _records(one["ray"])]
        places.append(np.stack(rays))
        first.append(first[-1] + len(rays))
        if (beam == number).any() and int(ray[beam == number].max()) >= len(rays):
            raise ValueError(f"beam {number + 1}: a column of ray {ray[beam == number].max() + 1}, it has {len(rays)}")
    if len(beam) != len(ray) or (len(beam) and (beam.min() < 0 or ray.min() < 0 or beam.max() >= len(beams))):
        raise ValueError(f"columns of beams 1 to {beam.max(initial=0) + 1}, stf holds {len(beams)} beams")
    place = np.concatenate(places)[np.asarray(first)[beam] + ray]
    width = np.asarray([float(b["bixelWidth"]) for b in beams])[beam]
    return BeamletColumns(beam, place[:, 0], place[:, 2], width, width)


def _c_order(matrix: csc_array, grid: VolumeGrid) -> csr_array:
    """Rows from matRad's order, y fastest, then x, then z, to x fastest, then y, then z."""
    if matrix.shape[0] != grid.voxel_count:
        return csr_array(matrix)  # the caller's check says what is wrong
    row = np.arange(grid.voxel_count, dtype=np.int32).reshape(grid.shape).swapaxes(1, 2).ravel()  # of each of matRad's
    parts = (matrix.data.astype(np.float32), row[matrix.indices], matrix.indptr)
    return csc_array(parts, shape=matrix.shape).tocsr()
