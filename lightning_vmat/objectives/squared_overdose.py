"""Squared overdose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels, check_limit


@dataclass(frozen=True)
class SquaredOverdose(DoseObjective):
    """`sum_i v_i (d_i - limit)_+^2`, Gy^2: mean squared dose above a limit; convex.

    Args:
        limit_gy: dose above which a voxel is penalised; one limit, or one for each voxel.
    """

    limit_gy: float | Float[Tensor, " voxel"]

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return (dose_gy - self.limit_gy).clamp(min=0.0).square() @ voxels.fraction

    def to(self, device: torch.device | str) -> SquaredOverdose:
        """Returns the objective on a device."""
        return SquaredOverdose(self.limit_gy.to(device)) if isinstance(self.limit_gy, Tensor) else self
