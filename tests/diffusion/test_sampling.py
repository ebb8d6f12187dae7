"""Noise levels and the sampler, against a distribution whose denoiser is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vmat.diffusion.heun_sampler import HeunSampler
from lightning_vmat.diffusion.noise import KarrasNoise, LogNormalNoise
from lightning_vmat.diffusion.preconditioning import per_map

MEAN, STD = 0.7, 0.3
SIGMA_MAX = 20.0


def gaussian_denoiser(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
    """Posterior mean of data `N(MEAN, STD^2)` under noise sigma."""
    keep = per_map(STD**2 / (STD**2 + sigma**2), x)
    return MEAN + keep * (x - MEAN)


@pytest.mark.parametrize(("steps", "tolerance"), [(18, 0.05), (64, 4e-3), (256, 3e-4)])
def test_sampler_follows_the_analytic_flow_of_a_gaussian(steps: int, tolerance: float) -> None:
    z = torch.randn(3, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = HeunSampler(steps)(gaussian_denoiser, z, z)
    start = SIGMA_MAX * z
    exact = MEAN + STD / (STD**2 + SIGMA_MAX**2) ** 0.5 * (start - MEAN)
    assert (x - exact).abs().max().item() < tolerance


def test_sampler_is_second_order() -> None:
    z = torch.randn(1, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = HeunSampler(1024)(gaussian_denoiser, z, z)
    coarse, fine = ((HeunSampler(n)(gaussian_denoiser, z, z) - exact).abs().max() for n in (32, 64))
    assert coarse / fine > 3.2


def test_one_step_is_the_denoiser_at_sigma_max() -> None:
    z = torch.randn(2, 7)
    expected = gaussian_denoiser(SIGMA_MAX * z, torch.full((2,), SIGMA_MAX), z)
    torch.testing.assert_close(HeunSampler(1)(gaussian_denoiser, z, z), expected)


def test_levels_descend_from_sigma_max_to_zero() -> None:
    levels = KarrasNoise(0.002, 20.0).steps(10)
    assert levels[0].item() == pytest.approx(20.0, rel=1e-5)
    assert levels[-2].item() == pytest.approx(0.002, rel=1e-4)
    assert levels[-1].item() == 0.0
    assert bool((levels.diff() < 0).all())


def test_training_levels_stay_in_their_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = KarrasNoise(0.002, 20.0, low=0.02, high=0.98)
    sigma = noise.sample(10_000, generator)
    ends = noise.level(torch.tensor([0.02, 0.98]))
    assert ends[0] <= sigma.min() and sigma.max() <= ends[1]
    logs = LogNormalNoise(-1.2, 1.2).sample(10_000, generator).log()
    assert (logs.mean().item(), logs.std().item()) == pytest.approx((-1.2, 1.2), abs=0.05)


@pytest.mark.parametrize("arguments", [{"sigma_min": 0.0}, {"sigma_max": 0.001}, {"low": 0.5, "high": 0.5}])
def test_levels_that_do_not_ascend_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected 0 <"):
        KarrasNoise(**arguments)


def test_sampler_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HeunSampler(0)
