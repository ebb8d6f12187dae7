"""Distribution matching distillation: move the generator's distribution of maps toward the teacher's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.diffusion.noise import NoiseDistribution
from lightning_vmat.diffusion.preconditioning import Condition, Denoiser, Maps, per_map


class DistributionMatchingLoss:
    """A loss whose gradient is the difference of fake and real denoised maps at a random noise level.

    Its gradient descends the reverse Kullback-Leibler divergence between the diffused generated and real maps.

    Args:
        noise: distribution of the noise level, e.g. the middle 96 % of the sampler's levels.

    Reference: Yin et al. 2024 (DMD), equations 7 and 8; Yin et al. 2024 (DMD2), section 4.
    """

    def __init__(self, noise: NoiseDistribution) -> None:
        self.noise = noise

    def __call__(
        self,
        generated: Maps,
        condition: Condition,
        real: Denoiser,
        fake: Denoiser,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        gradient = self.gradient(generated.detach(), condition, real, fake, generator)
        # the derivative of this by `generated` is the gradient over the number of elements: the target is a constant
        return 0.5 * (generated - (generated.detach() - gradient)).square().mean()

    @torch.no_grad()
    def gradient(
        self,
        x: Maps,
        condition: Condition,
        real: Denoiser,
        fake: Denoiser,
        generator: torch.Generator | None = None,
    ) -> Maps:
        """Returns `w (mu_fake - mu_real)` at the noisy maps; `w` makes its size independent of the noise level."""
        sigma = self.noise.sample(len(x), generator).to(x)
        x_t = x + per_map(sigma, x) * torch.randn(x.shape, generator=generator).to(x)
        mu_real, mu_fake = real(x_t, sigma, condition), fake(x_t, sigma, condition)
        w = 1 / ((x - mu_real).flatten(1).abs().mean(dim=1) + 1e-6)  # (8)
        return per_map(w, x) * (mu_fake - mu_real)  # (7)
