"""Preconditioning: inputs and training targets of the raw network have unit variance at every noise level."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

Maps = Float[Tensor, "batch *map"]
Levels = Float[Tensor, " batch"]
Condition = Float[Tensor, "batch ..."]


@runtime_checkable
class Network(Protocol):
    """A raw network of any kind, from noisy maps, noise level and condition to a tensor shaped like the maps."""

    def __call__(self, x: Maps, c_noise: Levels, condition: Condition) -> Maps: ...


@runtime_checkable
class Denoiser(Protocol):
    """A function that returns the expected clean maps, given noisy ones and their noise level."""

    def __call__(self, x: Maps, sigma: Levels, condition: Condition) -> Maps: ...


def per_map(value: Levels, like: Maps) -> Float[Tensor, "batch ..."]:
    """Reshapes one number for each sample so that it multiplies the sample's map."""
    return value.view(-1, *[1] * (like.ndim - 1))


class EDMPreconditioning(nn.Module):
    """Denoiser `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)` around a network `F`.

    Args:
        network: called as `network(x, c_noise, condition)`.
        sigma_data: root mean square of the clean maps.

    Raises:
        ValueError: a sigma_data that is not positive.

    See `HeunSampler` for an example.

    Reference: Karras et al. 2022 (EDM), equation 7 and table 1.
    """

    def __init__(self, network: nn.Module, sigma_data: float) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data is {sigma_data}, expected a positive number")
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x: Maps, sigma: Levels, condition: Condition) -> Maps:
        """Returns the denoised maps."""
        variance = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / variance  # minimises c_out, and with it the amplification of network errors
        c_out = sigma * self.sigma_data / variance.sqrt()
        c_in = 1 / variance.sqrt()
        c_noise = sigma.log() / 4
        raw: Tensor = self.network(per_map(c_in, x) * x, c_noise, condition)
        return per_map(c_skip, x) * x + per_map(c_out, x) * raw  # (7)
