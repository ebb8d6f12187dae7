"""Gamma index by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
from lightning_vmat.plan.volume import VolumeGrid

GRID = VolumeGrid((8, 9, 10), (2.0, 2.5, 3.0), (-5.0, 3.0, 8.0))


def points() -> torch.Tensor:
    return GRID.centres_mm(torch.arange(GRID.voxel_count)).reshape(*GRID.shape, 3)


def test_equal_doses_have_gamma_zero() -> None:
    dose = 60 * torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0)) + 1
    gamma = gamma_index(dose, dose, GRID)
    assert float(gamma.max()) < 1e-3
    assert gamma_pass_rate(gamma) == 1


@pytest.mark.parametrize(("fraction", "expected"), [(0.015, 0.5), (0.03, 1.0), (0.0375, 1.25), (0.3, 1.5)])
def test_an_even_dose_differs_in_dose_only(fraction: float, expected: float) -> None:
    dose = torch.full(GRID.shape, 60.0)
    gamma = gamma_index(dose, dose * (1 + fraction), GRID, dose_fraction=0.03)
    assert torch.allclose(gamma, torch.full_like(gamma, expected), atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift_mm", [0.6, 1.5, -1.5])
def test_a_shifted_ramp_trades_dose_for_distance(axis: int, shift_mm: float) -> None:
    # Dose a x, shifted by s: min over u of (u/3)^2 + (a (s - u) / D)^2 = s^2 / (3^2 + (D/a)^2).
    slope, criterion = 1.0, 0.03
    x = points()[..., axis]
    reference = slope * (x - x.min()) + 20
    evaluated = reference - slope * shift_mm
    gamma = torch.zeros(GRID.voxel_count)
    gamma[:] = gamma_index(reference, evaluated, GRID, dose_fraction=criterion, cutoff_fraction=0.0)
    width = criterion * float(reference.max()) / slope
    expected = abs(shift_mm) / (9 + width**2) ** 0.5
    inner = gamma.reshape(GRID.shape).movedim(2 - axis, 0)[3:-3]
    assert torch.allclose(inner, torch.full_like(inner, expected), atol=0.02)


def test_low_dose_is_left_out() -> None:
    reference = torch.zeros(GRID.shape)
    reference[2:4, 3:5, 4:6] = 10.0
    reference[0, 0, 0] = 0.9
    assert len(gamma_index(reference, reference, GRID, cutoff_fraction=0.1)) == 8


def test_nonsense_is_refused() -> None:
    dose = torch.ones(GRID.shape)
    with pytest.raises(ValueError, match="expected both"):
        gamma_index(dose[1:], dose[1:], GRID)
    with pytest.raises(ValueError, match="expected positive"):
        gamma_index(dose, dose, GRID, distance_mm=0.0)
    with pytest.raises(ValueError, match="no dose"):
        gamma_index(0 * dose, dose, GRID)
