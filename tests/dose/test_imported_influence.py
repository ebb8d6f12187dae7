"""Influence from elsewhere lands on the right beamlets, and bad matrices are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array, save_npz

from lightning_vmat.dose.imported_influence import (
    BeamletColumns,
    ImportedInfluence,
    read_scipy_influence,
)
from lightning_vmat.plan.beamlets import BeamletGrid

GRID = BeamletGrid((-10.0, -5.0, 0.0, 10.0), -5.0, 2.5, 4)


def columns(
    x: list[float], y: list[float], height: list[float], control_point: list[int] | None = None
) -> BeamletColumns:
    points = np.array(control_point or [0] * len(x))
    return BeamletColumns(points, np.array(x), np.array(y), np.full(len(x), 2.5), np.array(height))


def test_columns_find_their_beamlets_on_uneven_leaves() -> None:
    placed = columns([3.75, -3.75, 1.25], [5.0, -7.5, -2.5], [10.0, 5.0, 5.0], [1, 0, 1]).place(GRID, 2)
    assert placed.tolist() == [12 + 8 + 3, 0, 12 + 4 + 2]


def test_smallest_grid_holds_every_column() -> None:
    few = columns([-3.75, 1.25, 6.25], [2.5, -7.5, 7.5], [5.0, 5.0, 5.0])
    grid = few.smallest_grid()
    assert grid.shape == (4, 5)
    assert grid.leaf_edges_mm == (-10.0, -5.0, 0.0, 5.0, 10.0)
    assert grid.beamlet_start_mm == -5.0
    few.place(grid, 1)
    with pytest.raises(ValueError, match="heights of 5 to 10 mm"):
        columns([0.0, 0.0], [0.0, 7.5], [5.0, 10.0]).smallest_grid()


@pytest.mark.parametrize(
    ("x", "y", "height", "control_point"),
    [(6.25, -2.5, 5.0, 0), (1.25, -12.5, 5.0, 0), (0.5, -2.5, 5.0, 0), (1.25, 5.0, 5.0, 0), (1.25, -2.5, 5.0, 2)],
)
def test_columns_off_the_grid(x: float, y: float, height: float, control_point: int) -> None:
    with pytest.raises(ValueError, match=r"column 1: beamlet of .* is not on the beamlet grid"):
        columns([-3.75, x], [-7.5, y], [5.0, height], [0, control_point]).place(GRID, 2)


def test_two_columns_for_one_beamlet() -> None:
    with pytest.raises(ValueError, match="columns 0 and 2 belong to the same beamlet"):
        columns([1.25, -3.75, 1.25], [-2.5] * 3, [5.0] * 3).place(GRID, 1)


def test_columns_that_the_matrix_lacks() -> None:
    with pytest.raises(ValueError, match="influence of 2 columns: expected 3"):
        ImportedInfluence(csr_array(np.ones((4, 2))), columns([1.25] * 3, [0.0] * 3, [5.0] * 3), np.zeros(1))


def test_a_million_columns_stay_sparse() -> None:
    count = 1_000_000
    generator = np.random.default_rng(0)
    place = (generator.integers(0, 50, 2 * count), generator.integers(0, count, 2 * count))
    matrix = csr_array((np.ones(2 * count, np.float32), place), shape=(50, count))  # 200 MB were it dense
    x, y, point = np.unravel_index(np.arange(count), (100, 100, 100))
    many = BeamletColumns(point, 2.5 * x, 5.0 * y, np.full(count, 2.5), np.full(count, 5.0))
    stored = ImportedInfluence(matrix, many, np.zeros(100)).stored()
    assert stored.fluence_shape == (100, 100, 100)
    dose = stored.forward(torch.ones(stored.fluence_shape))
    np.testing.assert_allclose(dose, matrix.sum(axis=1), rtol=1e-5)


def test_scipy_file(tmp_path: Path) -> None:
    matrix = random_array((30, 24), density=0.2, rng=np.random.default_rng(0), format="coo", dtype=np.float32)
    save_npz(tmp_path / "influence.npz", matrix)
    stored = read_scipy_influence(tmp_path / "influence.npz", (2, 3, 4), voxels=30)
    fluence = torch.rand(2, 3, 4)
    np.testing.assert_allclose(stored.forward(fluence), matrix @ fluence.flatten().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "voxels", "message"),
    [
        (np.nan, 5, "NaN or infinity"),
        (np.inf, 5, "NaN or infinity"),
        (-1.0, 5, "negative dose"),
        (1.0, 7, "5 rows, expected 7"),
    ],
)
def test_bad_matrices_are_named(value: float, voxels: int, message: str, tmp_path: Path) -> None:
    matrix = csr_array(np.full((5, 6), 0.5))
    matrix.data[3] = value
    save_npz(tmp_path / "bad.npz", matrix)
    with pytest.raises(ValueError, match=message) as caught:
        read_scipy_influence(tmp_path / "bad.npz", (1, 2, 3), voxels=voxels)
    assert "bad.npz" in str(caught.value)


def test_broken_scipy_files(tmp_path: Path) -> None:
    save_npz(tmp_path / "cut.npz", csr_array(np.ones((5, 6))))
    whole = (tmp_path / "cut.npz").read_bytes()
    for content in (whole[:200], b"nonsense", b""):
        (tmp_path / "cut.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.npz"):
            read_scipy_influence(tmp_path / "cut.npz", (1, 2, 3))
    with pytest.raises(ValueError, match=r"absent\.npz"):
        read_scipy_influence(tmp_path / "absent.npz", (1, 2, 3))
    save_npz(tmp_path / "odd.npz", csr_array(np.ones((5, 6))))
    with pytest.raises(ValueError, match="6 columns, expected 8"):
        read_scipy_influence(tmp_path / "odd.npz", (2, 2, 2))
