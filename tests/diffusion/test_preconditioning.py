"""The preconditioned network sees and predicts unit variance at every noise level."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_vmat.diffusion.preconditioning import EDMPreconditioning, per_map

SIGMAS = [0.01, 0.3, 1.0, 20.0]


class Recorder(nn.Module):
    """Keeps what it was given and returns a constant."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.seen: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor) -> Tensor:
        self.seen = x, c_noise
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("sigma_data", [0.2, 0.5])
def test_network_input_and_target_have_unit_variance(sigma: float, sigma_data: float) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = sigma_data * torch.randn(4, 50_000, generator=generator)
    noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
    level = torch.full((4,), sigma)
    network = Recorder(0.0)
    denoiser = EDMPreconditioning(network, sigma_data)
    skipped = denoiser(noisy, level, noisy)
    assert network.seen is not None
    assert network.seen[0].std().item() == pytest.approx(1.0, rel=0.01)
    assert network.seen[1].tolist() == pytest.approx([math.log(sigma) / 4] * 4, rel=1e-5)
    network.value = 1.0
    c_out = denoiser(noisy, level, noisy) - skipped
    assert ((clean - skipped) / c_out).std().item() == pytest.approx(1.0, rel=0.01)


def test_no_noise_is_left_untouched() -> None:
    noisy = torch.randn(2, 3, 4, 5)
    clean = EDMPreconditioning(Recorder(1.0), 0.5)(noisy, torch.full((2,), 1e-6), noisy)
    torch.testing.assert_close(clean, noisy, rtol=0, atol=1e-5)


def test_per_map_multiplies_each_sample() -> None:
    scaled = per_map(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)) * torch.ones(2, 3, 4)
    assert scaled[0].unique().tolist() == [1.0] and scaled[1].unique().tolist() == [2.0]


@pytest.mark.parametrize("sigma_data", [0.0, -1.0, math.nan])
def test_useless_sigma_data_is_named(sigma_data: float) -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        EDMPreconditioning(nn.Identity(), sigma_data)
