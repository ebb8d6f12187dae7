"""Fluence maps of trained networks, for recipes and planners; independent of Lightning."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.diffusion.preconditioning import EDMPreconditioning

Fluence = Float[Tensor, "batch control_point leaf_pair beamlet"]
Condition = Float[Tensor, "batch channel control_point leaf_pair beamlet"]


def one_step_maps(generator: EDMPreconditioning, sigma_max: float, noise: Fluence, condition: Condition) -> Fluence:
    """Returns a generator's maps from unit noise, by one call at its highest noise level; not clamped."""
    maps: Tensor = generator(sigma_max * noise, noise.new_full((len(noise),), sigma_max), condition)
    return maps


def regressed_maps(network: nn.Module, condition: Condition) -> Fluence:
    """Returns a regression's maps, the network's output for zero noise; not clamped."""
    nothing = condition.new_zeros(len(condition), *condition.shape[2:])
    maps: Tensor = network(nothing, condition.new_zeros(len(condition)), condition)
    return maps
