"""Dose falloff in normal tissue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels
from lightning_vmat.objectives.squared_overdose import SquaredOverdose


@dataclass(frozen=True)
class Falloff(DoseObjective):
    """Squared overdose above a limit that falls with the distance `r` to the targets; convex.

    `limit(r) = P (far + (near - far) exp(-decay (r - start)_+))`; with several targets, each with its prescription `P`,
    the highest limit holds.

    Args:
        near_fraction: limit next to the target, as a fraction of its prescription.
        far_fraction: limit far from the target, as a fraction of its prescription.
        decay_per_mm: rate of exponential decay.
        start_mm: distance at which it begins to fall.
    """

    near_fraction: float = 1.0
    far_fraction: float = 0.2
    decay_per_mm: float = 0.08
    start_mm: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.far_fraction <= self.near_fraction:
            raise ValueError(f"far_fraction is {self.far_fraction}, expected 0 to near_fraction ({self.near_fraction})")
        if not self.decay_per_mm >= 0 or not self.start_mm >= 0:
            raise ValueError(f"decay_per_mm {self.decay_per_mm}, start_mm {self.start_mm}: expected numbers >= 0")

    def limit_gy(self, voxels: StructureVoxels) -> Float[Tensor, " voxel"]:
        """Returns the limit of each voxel."""
        beyond = (voxels.target_distance_mm - self.start_mm).clamp(min=0.0)
        shape = self.far_fraction + (self.near_fraction - self.far_fraction) * torch.exp(-self.decay_per_mm * beyond)
        return (voxels.target_prescription_gy[:, None] * shape).amax(dim=0)

    def for_voxels(self, voxels: StructureVoxels) -> SquaredOverdose:
        """Returns squared overdose above the limits of these voxels."""
        return SquaredOverdose(self.limit_gy(voxels))

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return self.for_voxels(voxels)(dose_gy, voxels)
