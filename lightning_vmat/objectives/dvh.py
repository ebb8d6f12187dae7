"""Dose-volume objectives: a dose limit that a part of the structure may break."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels, check_limit, check_volume_fraction


def _in_hottest(
    dose_gy: Float[Tensor, "*batch voxel"],
    voxels: StructureVoxels,
    volume_fraction: float,
) -> Bool[Tensor, "*batch voxel"]:
    """Whether each voxel lies wholly in the hottest part of the structure."""
    order = dose_gy.detach().argsort(dim=-1, descending=True)
    hottest = voxels.fraction[order].cumsum(dim=-1) <= volume_fraction + 1e-6
    return hottest.new_zeros(hottest.shape).scatter(-1, order, hottest)


@dataclass(frozen=True)
class MaxDvh(DoseObjective):
    """At most `volume_fraction` of the structure above the limit.

    Squared overdose of the voxels beyond the allowed volume: the hottest `volume_fraction` is not penalised. Not
    convex; the gradient jumps where voxels change ranks.

    Args:
        limit_gy: dose that only a part of the structure may exceed.
        volume_fraction: that part, as a fraction of the volume.

    Reference: Wu and Mohan, Med Phys 27:701 (2000).
    """

    limit_gy: float
    volume_fraction: float

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)
        check_volume_fraction(self.volume_fraction)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        excess = (dose_gy - self.limit_gy).clamp(min=0.0)
        return excess.masked_fill(_in_hottest(dose_gy, voxels, self.volume_fraction), 0.0).square() @ voxels.fraction


@dataclass(frozen=True)
class MinDvh(DoseObjective):
    """At least `volume_fraction` of the structure above the limit: squared underdose of the missing voxels.

    Args:
        limit_gy: dose to be reached.
        volume_fraction: fraction of the volume that must reach it.
    """

    limit_gy: float
    volume_fraction: float

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)
        check_volume_fraction(self.volume_fraction)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        missing = (self.limit_gy - dose_gy).clamp(min=0.0)
        coldest = _in_hottest(-dose_gy, voxels, 1 - self.volume_fraction)
        return missing.masked_fill(coldest, 0.0).square() @ voxels.fraction
