"""Squared underdose."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels, check_limit


@dataclass(frozen=True)
class SquaredUnderdose(DoseObjective):
    """`sum_i v_i (limit - d_i)_+^2`, Gy^2: mean squared dose missing below a limit; convex.

    Args:
        limit_gy: dose below which a voxel is penalised.
    """

    limit_gy: float

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return (self.limit_gy - dose_gy).clamp(min=0.0).square() @ voxels.fraction
