"""Noise levels: distributions for training, and the steps of sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor


class NoiseDistribution(ABC):
    """A distribution of noise levels for training."""

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " sample"]:
        """Draws positive noise levels, on the CPU."""


class LogNormalNoise(NoiseDistribution):
    """`ln sigma ~ N(mean, std^2)`: concentrates training on levels where denoising is neither trivial nor impossible.

    Reference: Karras et al. 2022, table 1 (P_mean, P_std).
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        self.mean, self.std = mean, std

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " sample"]:
        """Draws log-normal noise levels, on the CPU."""
        return (self.mean + self.std * torch.randn(count, generator=generator)).exp()


class KarrasNoise(NoiseDistribution):
    """Noise levels distributed as the sampler's steps: `sigma(u)` for u uniform in [low, high], lowest at u = 0.

    Args:
        sigma_min: lowest noise level.
        sigma_max: highest noise level.
        rho: exponent that concentrates the levels toward sigma_min.
        low: start of the interval of u.
        high: end of the interval of u.

    Raises:
        ValueError: levels or an interval that do not ascend.

    Reference: Karras et al. 2022, equation 5.
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 20.0,
        rho: float = 7.0,
        low: float = 0.0,
        high: float = 1.0,
    ) -> None:
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"noise levels {sigma_min} to {sigma_max}: expected 0 < sigma_min < sigma_max")
        if not 0 <= low < high <= 1:
            raise ValueError(f"part {low} to {high} of the noise levels: expected 0 <= low < high <= 1")
        self.sigma_min, self.sigma_max, self.rho, self.low, self.high = sigma_min, sigma_max, rho, low, high

    def level(self, u: Float[Tensor, " sample"]) -> Float[Tensor, " sample"]:
        """Returns the noise level at u, from sigma_min at 0 to sigma_max at 1."""
        root_min, root_max = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        level: Tensor = (root_min + u * (root_max - root_min)) ** self.rho  # (5)
        return level

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " sample"]:
        """Draws noise levels at uniform u, on the CPU."""
        u = torch.rand(count, generator=generator)
        return self.level(self.low + (self.high - self.low) * u)

    def steps(self, count: int) -> Float[Tensor, " step"]:
        """Returns the levels of a sampler of `count` steps, descending, and a final 0.

        Raises:
            ValueError: fewer than one step.
        """
        if count < 1:
            raise ValueError(f"sampler of {count} steps: expected at least 1")
        levels = self.level(torch.linspace(1, 0, count, dtype=torch.float64))
        return torch.cat((levels, levels.new_zeros(1))).float()
