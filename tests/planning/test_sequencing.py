"""Leaf sequencing finds the nearest aperture, and exactly the aperture where the map is one."""

import itertools

import torch

from lightning_vmat.plan.aperture import Plan, coverage
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.planning.sequencing import sequence

GRID = BeamletGrid(tuple(map(float, range(-20, 21, 5))), -30.0, 5.0, 12)


def squared_error(plan: Plan, fluence: torch.Tensor) -> torch.Tensor:
    delivered = plan.mu[:, None, None] * coverage(plan.left_mm, plan.right_mm, GRID)
    return (delivered - fluence).square().sum(dim=(1, 2))


def test_a_map_that_is_an_aperture_comes_back() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(0, 6, (20, 8), generator=generator)
    stop = start + torch.randint(1, 6, (20, 8), generator=generator)
    left, right = GRID.beamlet_start_mm + 5.0 * start, GRID.beamlet_start_mm + 5.0 * stop
    fluence = 7.5 * coverage(left, right, GRID)
    plan = sequence(fluence, GRID)
    torch.testing.assert_close(plan.left_mm, left)
    torch.testing.assert_close(plan.right_mm, right)
    torch.testing.assert_close(plan.mu, torch.full((20,), 7.5))


def test_no_worse_than_exhaustive_search_on_one_row() -> None:
    grid = BeamletGrid((0.0, 5.0), -15.0, 5.0, 6)
    fluence = torch.rand(40, 1, 6, generator=torch.Generator().manual_seed(1))
    plan = sequence(fluence, grid)
    delivered = plan.mu[:, None, None] * coverage(plan.left_mm, plan.right_mm, grid)
    found = (delivered - fluence).square().sum(dim=(1, 2))
    best = torch.full((40,), torch.inf)
    for first, last in itertools.combinations(range(7), 2):
        mask = torch.zeros(6)
        mask[first:last] = 1
        level = (fluence[:, 0] * mask).sum(-1) / mask.sum()
        best = torch.minimum(best, (level[:, None] * mask - fluence[:, 0]).square().sum(-1))
    assert bool((found <= 1.02 * best + 1e-6).all())  # the intensity grid costs at most 2 %


def test_closed_pairs_meet_inside_the_opening() -> None:
    fluence = torch.zeros(1, 8, 12)
    fluence[0, 3:5, 4:8] = 5.0
    plan = sequence(fluence, GRID)
    assert bool((plan.left_mm[0, [0, 7]] == plan.right_mm[0, [0, 7]]).all())
    assert float(plan.left_mm[0, 0]) == 0.0


def test_an_empty_map_is_sequenced_without_nan() -> None:
    plan = sequence(torch.zeros(3, 8, 12), GRID)
    assert all(bool(value.isfinite().all()) for value in vars(plan).values())


def test_scaling_the_map_scales_monitor_units_only() -> None:
    fluence = torch.rand(5, 8, 12, generator=torch.Generator().manual_seed(2))
    plan, double = sequence(fluence, GRID), sequence(2 * fluence, GRID)
    torch.testing.assert_close(plan.left_mm, double.left_mm, atol=1e-4, rtol=0)
    torch.testing.assert_close(2 * plan.mu, double.mu)
    torch.testing.assert_close(4 * squared_error(plan, fluence), squared_error(double, 2 * fluence))
