"""Generalised equivalent uniform dose."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels, check_limit

MIN_DOSE_GY = 1e-3  # keeps powers and their derivatives finite where no dose arrives


@dataclass(frozen=True)
class Geud(DoseObjective):
    """`(G - limit)_+^2`, Gy^2, with `G = (sum_i v_i d_i^a)^(1/a)`; convex.

    Args:
        limit_gy: equivalent uniform dose to stay below.
        exponent: `a`, at least 1 (the mean); larger for organs that are sensitive to hot spots.

    Reference: Niemierko, Med Phys 26:1100 (1999).
    """

    limit_gy: float
    exponent: float

    def __post_init__(self) -> None:
        check_limit(self.limit_gy)
        if not 1 <= self.exponent <= 50:
            raise ValueError(f"exponent is {self.exponent}, expected 1 to 50")

    def equivalent_gy(
        self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels
    ) -> Float[Tensor, "*batch 1"]:
        """Returns the generalised equivalent uniform dose."""
        dose_gy = dose_gy.clamp(min=MIN_DOSE_GY)
        peak = dose_gy.detach().amax(dim=-1, keepdim=True)  # powers of numbers up to 1 cannot overflow
        return peak * ((dose_gy / peak).pow(self.exponent) @ voxels.fraction).pow(1 / self.exponent)[..., None]

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"], voxels: StructureVoxels) -> Float[Tensor, "*batch"]:
        return (self.equivalent_gy(dose_gy, voxels)[..., 0] - self.limit_gy).clamp(min=0.0).square()
