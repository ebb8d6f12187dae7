"""Deterministic sampling: Heun's second-order method along the probability-flow ODE."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lightning_vmat.diffusion.noise import KarrasNoise
from lightning_vmat.diffusion.preconditioning import Condition, Denoiser, Maps


class HeunSampler:
    """Solves `dx/dsigma = (x - D(x; sigma)) / sigma` from sigma_max to 0.

    Args:
        steps: number of steps; the denoiser is called `2 steps - 1` times.
        sigma_min: lowest noise level before 0.
        sigma_max: highest noise level, where sampling starts.
        rho: exponent that concentrates the levels toward sigma_min.

    A network that returns zero is the exact denoiser of Gaussian data, so the samples have deviation `sigma_data`:

    >>> import torch
    >>> from lightning_vmat.diffusion.heun_sampler import HeunSampler
    >>> from lightning_vmat.diffusion.preconditioning import EDMPreconditioning
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, c_noise, condition):
    ...         return torch.zeros_like(x)
    >>> denoiser = EDMPreconditioning(Zero(), sigma_data=0.5)
    >>> unit_noise = torch.randn(1, 24, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> maps = HeunSampler(steps=18)(denoiser, unit_noise, torch.zeros(1, 3, 24, 8, 8))
    >>> round(float(maps.std()), 1)
    0.5

    Reference: Karras et al. 2022, algorithm 1 with sigma(t) = t, s(t) = 1.
    """

    def __init__(self, steps: int = 18, sigma_min: float = 0.002, sigma_max: float = 20.0, rho: float = 7.0) -> None:
        self.sigma_max = sigma_max
        self.levels = KarrasNoise(sigma_min, sigma_max, rho).steps(steps)

    @torch.no_grad()
    def __call__(self, denoiser: Denoiser, unit_noise: Maps, condition: Condition) -> Maps:
        """Returns samples from standard normal noise; the same noise gives the same samples."""
        levels = self.levels.to(unit_noise)
        x = levels[0] * unit_noise

        def slope(x: Tensor, sigma: Tensor) -> Tensor:
            return (x - denoiser(x, sigma.expand(len(x)), condition)) / sigma  # (1)

        for here, there in pairwise(levels):
            d = slope(x, here)
            euler = x + (there - here) * d
            # no correction in the last step: the slope is not defined at sigma = 0
            x = euler if there == 0 else x + (there - here) * (d + slope(euler, there)) / 2
        return x
