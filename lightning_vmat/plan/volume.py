"""The axis-aligned voxel grid that CT, structures and dose of a case share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class VolumeGrid:
    """A regular grid of voxels in patient coordinates (DICOM LPS), stored `[z, y, x]`.

    Args:
        shape: number of voxels along z, y, x.
        spacing_mm: voxel size along x, y, z.
        origin_mm: x, y, z of the centre of voxel `[0, 0, 0]`.

    Raises:
        ValueError: an empty axis, or a spacing that is not positive and finite.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"volume shape {self.shape}: expected three positive lengths (z, y, x)")
        if not all(0 < spacing < float("inf") for spacing in self.spacing_mm):
            raise ValueError(f"voxel spacing {self.spacing_mm} mm: expected three positive numbers")

    @property
    def voxel_count(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def voxel_volume_cc(self) -> float:
        """Volume of one voxel, cubic centimetres."""
        x, y, z = self.spacing_mm
        return x * y * z / 1000.0

    def centres_mm(self, index: Int[Tensor, " voxel"]) -> Float[Tensor, "voxel 3"]:
        """Returns the centres (x, y, z) of voxels given by their flat C-order index."""
        _, ny, nx = self.shape
        zyx = torch.stack((index // (ny * nx), index // nx % ny, index % nx), dim=-1)
        spacing = torch.tensor(self.spacing_mm, device=index.device)
        return zyx.flip(-1) * spacing + torch.tensor(self.origin_mm, device=index.device)

    def index_coordinates(self, points_mm: Float[Tensor, "*point 3"]) -> Float[Tensor, "*point 3"]:
        """Returns continuous voxel coordinates (x, y, z) of points; integers at voxel centres."""
        origin = torch.tensor(self.origin_mm, device=points_mm.device, dtype=points_mm.dtype)
        spacing = torch.tensor(self.spacing_mm, device=points_mm.device, dtype=points_mm.dtype)
        return (points_mm - origin) / spacing
