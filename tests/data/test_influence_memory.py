"""Readers of influence matrices stream: their memory follows the matrix's entries, not its rows times its columns."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.sparse import csc_array, save_npz

from lightning_vmat.cases.portpy.beam import read_beam
from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.dose.imported_influence import read_scipy_influence

ROWS, COLUMNS, ENTRIES = 60_000, 10_000, 1_500_000  # 2.4 GB were it dense
OWN_BYTES = 8 * ENTRIES  # a value and an index, single precision


def sparse_matrix() -> csc_array:
    """A few entries in each of many columns."""
    generator = np.random.default_rng(0)
    start = np.linspace(0, ENTRIES, COLUMNS + 1).astype(np.int64)
    row = generator.integers(0, ROWS, ENTRIES).astype(np.int32)
    matrix = csc_array((generator.random(ENTRIES, np.float32), row, start), shape=(ROWS, COLUMNS))
    matrix.sum_duplicates()
    return matrix


def scipy_file(folder: Path, matrix: csc_array) -> Callable[[], object]:
    save_npz(folder / "influence.npz", matrix)
    return lambda: read_scipy_influence(folder / "influence.npz", (1, 200, COLUMNS // 200))


def portpy_folder(folder: Path, matrix: csc_array) -> Callable[[], object]:
    (folder / "Beams").mkdir()
    column = np.arange(COLUMNS)
    entries = matrix.tocoo()
    with h5py.File(folder / "Beams" / "Beam_0_Data.h5", "w") as file:
        file["sparse"] = np.stack((entries.row, entries.col, entries.data), axis=1)
        file["x"], file["y"] = 2.5 * (column % 200), 2.5 * (column // 200)
        file["size"] = np.full(COLUMNS, 2.5)
    names = {"position_x_mm": "x", "position_y_mm": "y", "width_mm": "size", "height_mm": "size"}
    about = {
        "ID": 0,
        "beamlets": {f"{name}_File": f"Beam_0_Data.h5/{inside}" for name, inside in names.items()},
        "iso_center": dict.fromkeys(("x_mm", "y_mm", "z_mm"), 0.0),
        **dict.fromkeys(("gantry_angle", "collimator_angle", "couch_angle"), 0.0),
        "SAD_mm": 1000.0,
        "influenceMatrixSparse_File": "Beam_0_Data.h5/sparse",
    }
    return lambda: read_beam(PortPyFolder(folder), about, 0, rows=ROWS, full=False, target=None)


@pytest.mark.parametrize("source", [scipy_file, portpy_folder])
def test_reading_takes_a_few_times_the_matrix_itself(
    source: Callable[[Path, csc_array], Callable[[], object]], tmp_path: Path
) -> None:
    read = source(tmp_path, sparse_matrix())
    tracemalloc.start()
    try:
        read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    print(f"{source.__name__}: peak {peak / OWN_BYTES:.1f} times the matrix")
    assert peak < 8 * OWN_BYTES
