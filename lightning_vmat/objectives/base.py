"""Base of all dose objectives: a penalty on the dose of one structure's voxels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class StructureVoxels:
    """The sampled voxels of a structure (or of its part outside some targets).

    Args:
        index: positions in the voxel sample.
        fraction: share of the whole structure's volume that each voxel represents; the sum is 1, or less if a part of
            the structure is left out, which then counts as receiving no dose.
        volume_cc: volume that each voxel represents.
        target_distance_mm: distance to each target, zero inside it.
        target_prescription_gy: prescription of each target.
    """

    index: Int[Tensor, " voxel"]
    fraction: Float[Tensor, " voxel"]
    volume_cc: Float[Tensor, " voxel"]
    target_distance_mm: Float[Tensor, "target voxel"]
    target_prescription_gy: Float[Tensor, " target"]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, keep: Tensor) -> StructureVoxels:
        """Returns the voxels selected by a mask or by index; fractions remain those of the whole structure."""
        return StructureVoxels(
            self.index[keep],
            self.fraction[keep],
            self.volume_cc[keep],
            self.target_distance_mm[:, keep],
            self.target_prescription_gy,
        )

    def to(self, device: torch.device | str) -> StructureVoxels:
        """Returns the voxels on a device."""
        return StructureVoxels(**{name: value.to(device) for name, value in vars(self).items()})


class DoseObjective(ABC):
    """A differentiable penalty; parameters are the fields of the dataclasses derived from it."""

    @abstractmethod
    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        """Returns the penalty on the dose of these voxels, before its weight is applied."""

    def for_voxels(self, voxels: StructureVoxels) -> DoseObjective:
        """Returns the objective with everything precomputed that depends on geometry but not on dose."""
        return self

    def to(self, device: torch.device | str) -> DoseObjective:
        """Returns the objective with its tensors, if it has any, on a device."""
        return self


def check_limit(limit_gy: float | Tensor) -> None:
    """Raises a ValueError unless a dose limit is a finite number of at least 0 Gy."""
    if not isinstance(limit_gy, Tensor) and not 0 <= limit_gy < float("inf"):
        raise ValueError(f"limit_gy is {limit_gy}, expected a number >= 0")


def check_volume_fraction(volume_fraction: float) -> None:
    """Raises a ValueError for a volume fraction outside [0, 1]."""
    if not 0 <= volume_fraction <= 1:
        raise ValueError(f"volume_fraction is {volume_fraction}, expected 0 to 1")
