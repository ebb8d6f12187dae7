"""Inputs of the learned optimizer: candidate directions and context, independent of the problem's scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.shapes import FluenceMap

MOMENTUM = (0.5, 0.9)  # decay factors of the two momenta
DIRECTIONS = 5  # quasi-Newton, gradient, two momenta, last step
CONTEXT = 6  # x, free, majoriser; broadcast: last step length, last decrease, number of steps


@dataclass(frozen=True)
class Features:
    """Inputs for each beamlet, without gradient.

    Args:
        directions: candidate steps over their common size; the first is the quasi-Newton step.
        context: further inputs, of order one (see `CONTEXT`).
        size: root mean square of the quasi-Newton step, in units of x.
    """

    directions: Float[Tensor, "control_point direction leaf_pair beamlet"]
    context: Float[Tensor, "control_point context leaf_pair beamlet"]
    size: Float[Tensor, ""]

    @classmethod
    @torch.no_grad()
    def gather(
        cls,
        x: FluenceMap,
        free: FluenceMap,
        steps: list[FluenceMap],
        majoriser: FluenceMap,
        progress: tuple[float, float, float],
    ) -> Features:
        """Normalises and stacks the inputs.

        Args:
            x: fluence.
            free: 1 where a beamlet may move, 0 where it is held at zero.
            steps: candidate steps in units of x, the quasi-Newton one first.
            majoriser: diagonal bound of the Hessian.
            progress: last step length, log ratio of the last decrease, evaluations spent.
        """
        # one size for all directions keeps their ratios, and makes the inputs independent of units and weights
        size = (steps[0].square().sum() / free.sum().clamp(min=1)).sqrt()
        tiny = 1e-6 * x.mean() + torch.finfo(x.dtype).tiny
        directions = torch.stack([step * free / (size + tiny) for step in steps], dim=1)
        length, decrease, evaluations = progress
        broadcast = (length, max(decrease, -3.0), min(evaluations, 30.0) / 10)
        context = [torch.asinh(x / (x.mean() + tiny)), free, (majoriser / majoriser.mean()).log() / 2]
        context += [torch.full_like(x, value) for value in broadcast]
        return cls(directions, torch.stack(context, dim=1), size)
