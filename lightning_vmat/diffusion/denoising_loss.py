"""The denoising loss: recover clean maps from noisy ones, with weights that balance the noise levels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.diffusion.noise import NoiseDistribution
from lightning_vmat.diffusion.preconditioning import Condition, Denoiser, Maps, per_map


class DenoisingLoss:
    """Denoising loss `E_sigma lambda(sigma) |D(y + sigma n; sigma) - y|^2`, averaged over the map.

    Args:
        noise: distribution of sigma.
        sigma_data: root mean square of the clean maps.

    Reference: Karras et al. 2022, equation 2 and table 1; the weight equals `1/sigma^2 + 1/sigma_data^2`.
    """

    def __init__(self, noise: NoiseDistribution, sigma_data: float) -> None:
        self.noise = noise
        self.sigma_data = sigma_data

    def __call__(
        self,
        denoiser: Denoiser,
        clean: Maps,
        condition: Condition,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        sigma = self.noise.sample(len(clean), generator).to(clean)
        n = torch.randn(clean.shape, generator=generator).to(clean)
        # lambda(sigma) = 1 / c_out^2: the raw network's error has weight 1; while it returns zero the loss is about 1
        weight = (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
        error = denoiser(clean + per_map(sigma, clean) * n, sigma, condition) - clean
        return (per_map(weight, clean) * error**2).mean()  # (2)
