"""Mean dose."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels


@dataclass(frozen=True)
class MeanDose(DoseObjective):
    """`sum_i v_i d_i`, Gy: linear, so that an organ is spared even below its limits."""

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return dose_gy @ voxels.fraction
