"""Maximum dose."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels, check_limit


@dataclass(frozen=True)
class MaxDose(DoseObjective):
    """`sum_i V_i (d_i - limit)_+^2`, Gy^2 cc: a cubic centimetre counts the same in structures of any size; convex.

    A few voxels determine a maximum; a mean over the structure would dilute them. Set the limit some Gy below the dose
    that must not be exceeded.

    Args:
        limit_gy: dose above which a voxel is penalised.
    """

    limit_gy: float

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return (dose_gy - self.limit_gy).clamp(min=0.0).square() @ voxels.volume_cc
