"""Denoising and distribution matching, checked where their answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vmat.diffusion.denoising_loss import DenoisingLoss
from lightning_vmat.diffusion.distribution_matching import DistributionMatchingLoss
from lightning_vmat.diffusion.noise import KarrasNoise, LogNormalNoise
from lightning_vmat.diffusion.preconditioning import Denoiser, per_map


def gaussian(mean: float, std: float) -> Denoiser:
    def denoise(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        return mean + per_map(std**2 / (std**2 + sigma**2), x) * (x - mean)

    return denoise


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_perfect_denoiser_has_no_loss() -> None:
    clean = torch.rand(3, 4, 5, 6)
    loss = DenoisingLoss(LogNormalNoise(), 0.5)
    assert loss(lambda x, sigma, condition: clean, clean, clean).item() == 0.0


def test_posterior_mean_is_the_minimum_of_the_denoising_loss() -> None:
    clean = 0.7 + 0.3 * torch.randn(64, 500, generator=seeded())
    loss = DenoisingLoss(LogNormalNoise(), 0.75)
    best = loss(gaussian(0.7, 0.3), clean, clean, seeded())
    for mean, std in [(0.6, 0.3), (0.8, 0.3), (0.7, 0.25), (0.7, 0.35)]:
        assert loss(gaussian(mean, std), clean, clean, seeded()) > best


def test_loss_of_an_untrained_network_is_about_one_at_every_noise_level() -> None:
    """Preconditioning and weight together: a zero raw network costs 1 for data of RMS sigma_data."""
    clean = 0.5 * torch.randn(16, 4000, generator=seeded())
    for sigma in (0.01, 0.5, 10.0):
        loss = DenoisingLoss(KarrasNoise(sigma, sigma * 1.001), 0.5)
        assert loss(gaussian(0.0, 0.5), clean, clean, seeded()).item() == pytest.approx(1.0, rel=0.02)


def test_matching_gradient_is_exactly_zero_when_real_equals_fake() -> None:
    x = torch.rand(2, 3, 4, 5, requires_grad=True)
    DistributionMatchingLoss(KarrasNoise())(x, x.detach(), gaussian(0.7, 0.3), gaussian(0.7, 0.3)).backward()
    assert x.grad is not None and x.grad.abs().max().item() == 0.0


def test_loss_backpropagates_the_matching_gradient() -> None:
    x = torch.rand(2, 3, 4, 5, generator=seeded(), requires_grad=True)
    matching = DistributionMatchingLoss(KarrasNoise())
    scores = gaussian(0.7, 0.3), gaussian(0.2, 0.4)
    matching(x, x.detach(), *scores, seeded()).backward()
    expected = matching.gradient(x.detach(), x.detach(), *scores, seeded()) / x.numel()
    torch.testing.assert_close(x.grad, expected)


def test_descent_moves_generated_mean_and_spread_to_the_real_ones() -> None:
    """An affine generator with the exact fake score learns N(0.7, 0.3^2) from N(0.1, 0.6^2), to 0.02."""
    generator = seeded()
    mean, std = torch.tensor(0.1, requires_grad=True), torch.tensor(0.6, requires_grad=True)
    optimizer = torch.optim.Adam([mean, std], lr=0.02)
    matching = DistributionMatchingLoss(KarrasNoise(low=0.02, high=0.98))
    for _ in range(300):
        x = mean + std * torch.randn(64, 64, generator=generator)
        fake = gaussian(mean.item(), std.item())
        optimizer.zero_grad()
        matching(x, x.detach(), gaussian(0.7, 0.3), fake, generator).backward()
        optimizer.step()
    assert mean.item() == pytest.approx(0.7, abs=0.02)
    assert std.item() == pytest.approx(0.3, abs=0.02)
