"""An adversarial loss: a critic of noisy maps for detail that distribution matching blurs, such as aperture edges."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_vmat.diffusion.noise import NoiseDistribution
from lightning_vmat.diffusion.preconditioning import Condition, Maps, per_map


class AdversarialLoss:
    """Non-saturating logistic losses of a critic of noisy maps.

    Args:
        noise: distribution of the noise level.
        sigma_data: root mean square of the clean maps.

    Reference: Goodfellow et al. 2014; Yin et al. 2024 (DMD2), section 4.3.
    """

    def __init__(self, noise: NoiseDistribution, sigma_data: float) -> None:
        self.noise, self.sigma_data = noise, sigma_data

    def of_generator(self, critic: nn.Module, generated: Maps, condition: Condition) -> Float[Tensor, ""]:
        """Returns the generator's loss, low if the critic takes generated maps for real ones."""
        return softplus(-self._logits(critic, generated, condition)).mean()

    def of_critic(self, critic: nn.Module, generated: Maps, real: Maps, condition: Condition) -> Float[Tensor, ""]:
        """Returns the critic's loss, low if the critic tells generated maps from real ones."""
        # generated maps are detached, so that this loss trains the critic and not the generator
        return (
            softplus(self._logits(critic, generated.detach(), condition)).mean()
            + softplus(-self._logits(critic, real, condition)).mean()
        )

    def _logits(self, critic: nn.Module, maps: Maps, condition: Condition) -> Tensor:
        # noise lets the distributions of real and generated maps overlap; otherwise the critic saturates
        sigma = self.noise.sample(len(maps)).to(maps)
        noisy = maps + per_map(sigma, maps) * torch.randn_like(maps)
        scale = (sigma**2 + self.sigma_data**2).rsqrt()  # c_in and c_noise of EDM, table 1: inputs of unit variance
        logits: Tensor = critic(per_map(scale, maps) * noisy, sigma.log() / 4, condition)
        return logits
