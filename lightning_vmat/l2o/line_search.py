"""Line search in dose space: dose is linear in fluence, so a search along `d` needs `D d` but no other projection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import ObjectiveFunction
from lightning_vmat.plan.shapes import FluenceMap

COARSE = (0.0, 1 / 64, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0, 3 / 2, 2.0, 3.0, 4.0)
FINE, ROUNDS = 9, 3  # points and rounds of refinement, which find the step to about 1 %


def longest_step(
    x: FluenceMap,
    direction: FluenceMap,
) -> float:
    """Returns the largest step that keeps `x + step * direction` non-negative; infinite if no element decreases."""
    shrinking = direction < 0
    if not bool(shrinking.any()):
        return float("inf")
    return float((x[shrinking] / -direction[shrinking]).min())


@torch.no_grad()
def search_step(
    objective: ObjectiveFunction,
    dose_gy: Float[Tensor, " voxel"],
    direction_dose_gy: Float[Tensor, " voxel"],
    longest: float,
) -> float:
    """Returns the step in [0, longest] (at most 4) with the smallest objective along a direction.

    Zero is among the candidates, so the objective never rises, even if it is not convex; candidates whose objective is
    not finite are ignored.

    Args:
        objective: dose objective, called for several doses at once.
        dose_gy: dose at step 0.
        direction_dose_gy: dose of the direction.
        longest: largest step allowed.
    """
    steps: Tensor = torch.unique(torch.tensor(COARSE, dtype=dose_gy.dtype, device=dose_gy.device).clamp(max=longest))
    best = 0.0
    for _ in range(ROUNDS + 1):
        values = objective(dose_gy + steps[:, None] * direction_dose_gy).nan_to_num(nan=torch.inf)
        index = int(values.argmin())
        best = float(steps[index])
        # a convex objective has its minimum between the neighbours of the best candidate
        low, high = steps[max(index - 1, 0)], steps[min(index + 1, len(steps) - 1)]
        if not bool(high > low):
            break
        inner = torch.linspace(0, 1, FINE, dtype=steps.dtype, device=steps.device)
        steps = torch.unique(torch.cat((low + (high - low) * inner, steps[index : index + 1])))
    return best
