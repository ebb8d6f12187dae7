"""Structures made from others: sets, and margins in mm as an ellipsoid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.objectives.derived import (
    DerivedStructure,
    contracted,
    expanded,
    make_derived,
    parse_derived,
    sources_of,
    with_derived,
)
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.volume import VolumeGrid

GRID = VolumeGrid((40, 90, 90), (1.0, 1.0, 2.5), (-44.5, -44.5, -48.75))


def coordinates(grid: VolumeGrid = GRID) -> tuple[np.ndarray, ...]:
    points = grid.centres_mm(torch.arange(grid.voxel_count)).double().numpy().reshape(*grid.shape, 3)
    return tuple(np.moveaxis(points, -1, 0))


def ellipsoid(*half_axes: float, grid: VolumeGrid = GRID) -> np.ndarray:
    return np.asarray(sum((at / axis) ** 2 for at, axis in zip(coordinates(grid), half_axes, strict=True)) <= 1)


def box(*half: float) -> np.ndarray:
    x, y, z = coordinates()
    return np.asarray((abs(x) < half[0]) & (abs(y) < half[1]) & (abs(z) < half[2]))


def extent(mask: np.ndarray) -> list[float]:
    """Right, left, anterior, posterior, inferior, superior faces of the voxels, mm."""
    faces = []
    for at, spacing in zip(coordinates(), GRID.spacing_mm, strict=True):
        faces += [at[mask].min() - spacing / 2, at[mask].max() + spacing / 2]
    return faces


@pytest.mark.parametrize("margin_mm", [(5.0, 5.0, 5.0), (7.0, 7.0, 5.0), (3.0, 8.0, 10.0)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 2.5), (0.9, 1.2, 3.0), (2.0, 2.0, 2.0)])
def test_a_grown_sphere_has_the_volume_of_the_sum(
    margin_mm: tuple[float, float, float], spacing_mm: tuple[float, float, float]
) -> None:
    """Of a sphere and an ellipsoid (Minkowski), counted on a fine grid."""
    nx, ny, nz = (round(90 / step) for step in spacing_mm)
    grid = VolumeGrid((nz, ny, nx), spacing_mm, (-44.0, -44.3, -44.6))
    grown = expanded(ellipsoid(15, 15, 15, grid=grid), grid, tuple(np.repeat(margin_mm, 2)))
    directions = np.random.default_rng(1).normal(size=(4000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    support = 15 + np.linalg.norm(directions * margin_mm, axis=1)  # of the sum, in each direction
    points = np.stack(coordinates(grid), axis=-1).reshape(-1, 3)
    near = points[np.linalg.norm(points, axis=1) < 15 + max(margin_mm)]
    inside = np.concatenate([(part @ directions.T <= support).all(axis=1) for part in np.array_split(near, 100)])
    assert grown.sum() == pytest.approx(inside.sum(), rel=0.04)


def test_margins_differ_by_side_and_are_rounded_to_voxels() -> None:
    sides = {"right": 3, "left": 6, "anterior": 8, "posterior": 0, "inferior": 5, "superior": 11}
    [one] = parse_derived({"PTV": {"expand": "CTV", "margin_mm": sides}})
    small = box(10, 10, 10)
    right, left, front, back, low, high = extent(one.mask({"CTV": small}, GRID))
    assert (right, left, front, back, low, high) == (-13, 16, -18, 10, -15, 20)
    [less] = parse_derived({"PTV": {"contract": "CTV", "margin_mm": {**sides, "superior": 2.5}}})
    assert extent(less.mask({"CTV": small}, GRID)) == [-7, 4, -2, 10, -5, 7.5]


@pytest.mark.parametrize("margin_mm", [2.0, 5.0, 8.0])
def test_growing_and_shrinking_undo_each_other(margin_mm: float) -> None:
    ball = ellipsoid(18, 20, 17)
    back = contracted(expanded(ball, GRID, (margin_mm,) * 6), GRID, (margin_mm,) * 6)
    assert (back ^ ball).sum() < 0.06 * ball.sum() and back.sum() == pytest.approx(ball.sum(), rel=0.05)


def test_margins_round_corners() -> None:
    corner = box(10, 10, 10)
    grown = expanded(corner, GRID, (6.0,) * 6)
    assert extent(grown)[:4] == [-16, 16, -16, 16]
    x, y, _ = coordinates()
    assert not grown[(abs(x) > 15) & (abs(y) > 15)].any()


def test_what_touches_the_grid_stays_on_it() -> None:
    everything = np.ones(GRID.shape, np.bool_)
    assert contracted(everything, GRID, (5.0,) * 6).all()
    assert not expanded(~everything, GRID, (5.0,) * 6).any()
    x, _, _ = coordinates()
    assert expanded(x > 42, GRID, (5.0,) * 6).sum() == (x > 37).sum()


def test_sets_are_combined_in_any_order() -> None:
    section = {
        "Ring": {"difference": ["Wide", "PTV"]},
        "Wide": {"expand": "PTV", "margin_mm": 10},
        "PTV": {"expand": "CTV", "margin_mm": [7, 7, 5]},
        "Both": {"union": ["CTV", "Rectum"]},
        "Shared": {"intersection": ["PTV", "Rectum"]},
        "None": {"union": ["CTV", "Absent"]},
    }
    derived = parse_derived(section)
    assert sources_of(derived) == ["CTV", "Rectum", "Absent"] or set(sources_of(derived)) == {"CTV", "Rectum", "Absent"}
    masks = {"CTV": ellipsoid(10, 10, 10), "Rectum": ellipsoid(6, 14, 30), "PTV": box(3, 3, 3)}
    made = make_derived(derived, masks, GRID)
    assert set(made) == {"Ring", "Wide", "PTV", "Both", "Shared"}
    assert not (made["Ring"] & made["PTV"]).any() and np.array_equal(made["Ring"] | made["PTV"], made["Wide"])
    assert np.array_equal(made["Both"], masks["CTV"] | masks["Rectum"])
    assert np.array_equal(made["Shared"], made["PTV"] & masks["Rectum"])
    assert str(derived[0]).startswith(("expand CTV by right 7, left 7", "union of"))


def test_a_case_gets_them_on_its_own_grid() -> None:
    case = make_phantom(0, "tiny")
    ring = DerivedStructure("Ring", "difference", ("Body", "PTV"))
    both = with_derived(case, (ring,))
    assert torch.equal(both.structures["Ring"], case.structures["Body"] & ~case.structures["PTV"])


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ([], "structures: got"),
        ({"A": "CTV"}, r"structures\.A: got 'CTV', expected exactly one of union, intersection"),
        ({"A": {"union": ["B", "C"], "difference": ["B", "C"]}}, "exactly one of"),
        ({"A": {"union": ["B"]}}, r"structures\.A\.union: got \['B'\], expected a list of at least two"),
        ({"A": {"expand": "B"}}, "expected one structure and margin_mm"),
        ({"A": {"expand": "B", "margin_mm": -1}}, r"structures\.A\.margin_mm: got -1, expected 0 to 100 mm"),
        ({"A": {"expand": "B", "margin_mm": [1, 2]}}, "expected 0 to 100 mm"),
        ({"A": {"expand": "B", "margin_mm": float("nan")}}, "expected 0 to 100 mm"),
        ({"A": {"expand": "B", "margin_mm": {"left": 1}}}, r"got sides \['left'\], expected right, left"),
        ({"A": {"union": ["B", "C"], "margin_mm": 3}}, "unknown key 'margin_mm'"),
        ({"A": {"union": ["B", "C"]}, "B": {"union": ["A", "C"]}}, "A, B are derived from one another"),
    ],
)
def test_what_cannot_be_made_is_named(section: object, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        parse_derived(section)
    path = tmp_path / "own.yaml"
    lines = [{"structure": "PTV", "type": "mean", "weight": 1.0}]
    goals = [{"structure": "PTV", "measure": "D95", "at_least": 0.9, "of_prescription": True}]
    document = {"prescription_gy": {"PTV": 60.0}, "fractions": 20, "objectives": lines, "goals": goals}
    path.write_text(yaml.safe_dump({**document, "structures": section}))
    with pytest.raises(ValueError, match=f"protocol .*own.yaml: .*{named}"):
        load_protocol(path)
    path.write_text(yaml.safe_dump({**document, "structures": {"PTV": {"expand": "CTV", "margin_mm": 5}}}))
    assert load_protocol(path).derived == (DerivedStructure("PTV", "expand", ("CTV",), (5.0,) * 6),)
