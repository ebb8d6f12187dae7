"""Blurred maps to dose: each voxel sums, over control points and kernels, the map's value where it is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel
from lightning_vmat.dose.blur import Nodes
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import project_to_bev

CHUNK = 1_000_000  # (control point, voxel) pairs worked on at once


@dataclass(frozen=True)
class Sampling:
    """Where each voxel lies in each beam's-eye view, and how deep.

    Args:
        voxels_mm: voxel centres, patient LPS.
        depth_mm: radiological depth, half precision (0.1 mm at 200 mm).
        control_points: where the beam stands.
        isocentre_mm: isocentre, patient LPS.
        model: weights of the kernels over depth.
        y_nodes: rows of the maps.
        x_nodes: columns of the maps.
        fractions: dose is that of so many fractions.
    """

    voxels_mm: Float[Tensor, "voxel 3"]
    depth_mm: Float[Tensor, "control_point voxel"]
    control_points: ControlPoints
    isocentre_mm: tuple[float, float, float]
    model: BeamModel
    y_nodes: Nodes
    x_nodes: Nodes
    fractions: int

    @property
    def chunk(self) -> int:
        """Control points worked on at once."""
        return max(1, CHUNK // max(1, len(self.voxels_mm)))

    def geometry(
        self, part: slice
    ) -> tuple[Float[Tensor, "control_point voxel 2"], Float[Tensor, "kernel control_point voxel"]]:
        """Continuous (x, y) node numbers and kernel weights of the voxels, for some control points."""
        points = replace(self.control_points, **{name: v[part] for name, v in vars(self.control_points).items()})
        bev, distance = project_to_bev(self.voxels_mm, points, self.isocentre_mm, self.model.sad_mm)
        place = torch.stack((self.x_nodes.place(bev[..., 0]), self.y_nodes.place(bev[..., 1])), dim=-1)
        inverse_square = (self.model.sad_mm / distance) ** 2 * self.fractions
        return place, self.model.weights(self.depth_mm[part].float()) * inverse_square

    def forward(self, maps: Float[Tensor, "batch control_point kernel y_node x_node"]) -> Float[Tensor, "batch voxel"]:
        dose = maps.new_zeros(len(maps), len(self.voxels_mm))
        for start in range(0, maps.shape[1], self.chunk):
            part = slice(start, start + self.chunk)
            place, weight = self.geometry(part)
            grid = self._grid(place)
            for one, some in zip(dose, maps[:, part], strict=True):
                seen = F.grid_sample(some, grid, align_corners=True)[:, :, 0]
                one += torch.einsum("ckv,kcv->v", seen, weight)
        return dose

    def adjoint(self, dose: Float[Tensor, "batch voxel"]) -> Float[Tensor, "batch control_point kernel y_node x_node"]:
        control_points, kernels = self.depth_mm.shape[0], self.model.mixture.shape[0]
        maps = dose.new_zeros(len(dose), control_points, kernels, len(self.y_nodes), len(self.x_nodes))
        for start in range(0, control_points, self.chunk):
            part = slice(start, start + self.chunk)
            place, weight = self.geometry(part)
            grid = self._grid(place)
            for one, some in zip(dose, maps[:, part], strict=True):
                spread = (weight * one).transpose(0, 1)[:, :, None].contiguous()
                some.copy_(_grid_sample_adjoint(spread, some, grid))
        return maps

    def to(self, device: torch.device | str) -> Sampling:
        return replace(
            self,
            voxels_mm=self.voxels_mm.to(device),
            depth_mm=self.depth_mm.to(device),
            control_points=self.control_points.to(device),
        )

    def _grid(self, place: Tensor) -> Tensor:
        last = torch.tensor([len(self.x_nodes) - 1, len(self.y_nodes) - 1], device=place.device)
        return (place * (2 / last) - 1)[:, None]


def _grid_sample_adjoint(values: Tensor, like: Tensor, grid: Tensor) -> Tensor:
    """Transpose of bilinear `grid_sample` with aligned corners and zero padding."""
    mask = [True, False]
    gradient: Tensor = torch.ops.aten.grid_sampler_2d_backward(values, like, grid, 0, 0, True, mask)[0]
    return gradient
