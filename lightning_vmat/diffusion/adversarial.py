"""An adversarial loss: a critic of noisy maps sees what distribution matching blurs, such as the edges of apertures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_vmat.diffusion.noise import NoiseDistribution
from lightning_vmat.diffusion.preconditioning import Condition, Maps, per_map


class AdversarialLoss:
    """Non-saturating logistic losses of a critic that is given maps with noise.

    Args:
        noise: distribution of the noise level.
        sigma_data: root mean square of the clean maps.

    Reference: Goodfellow et al. 2014; Yin et al. 2024 (DMD2), section 4.3.
    """

    def __init__(self, noise: NoiseDistribution, sigma_data: float) -> None:
        self.noise, self.sigma_data = noise, sigma_data

    def of_generator(self, critic: nn.Module, generated: Maps, condition: Condition) -> Float[Tensor, ""]:
        """Low where the critic takes generated maps for real ones."""
        return softplus(-self._logits(critic, generated, condition)).mean()

    def of_critic(self, critic: nn.Module, generated: Maps, real: Maps, condition: Condition) -> Float[Tensor, ""]:
        """Low where the critic tells them apart."""
        return (
            softplus(self._logits(critic, generated.detach(), condition)).mean()
            + softplus(-self._logits(critic, real, condition)).mean()
        )

    def _logits(self, critic: nn.Module, maps: Maps, condition: Condition) -> Tensor:
        sigma = self.noise.sample(len(maps)).to(maps)
        noisy = maps + per_map(sigma, maps) * torch.randn_like(maps)
        scale = (sigma**2 + self.sigma_data**2).rsqrt()
        logits: Tensor = critic(per_map(scale, maps) * noisy, sigma.log() / 4, condition)
        return logits
