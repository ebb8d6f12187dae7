"""Blurred maps to dose: each voxel sums, over control points and kernels, the map's value where it is seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel
from lightning_vmat.dose.blur import Nodes
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import project_to_bev

CHUNK = 1_000_000  # (control point, voxel) pairs worked on at once
KEPT = 16_000_000  # pairs whose view is kept, at 20 bytes a pair

View = tuple[slice, Float[Tensor, "control_point 1 voxel 2"], Float[Tensor, "control_point kernel voxel"]]


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

    @cached_property
    def _views(self) -> list[View] | None:
        """What each part of the control points sees, kept where it is small enough to be used again."""
        if self.depth_mm.numel() > KEPT:
            return None
        return list(self._look())

    def views(self) -> Iterable[View]:
        """(control points, where their maps are sampled, weights), part by part."""
        return self._look() if self._views is None else self._views

    def _look(self) -> Iterator[View]:
        size = max(1, CHUNK // len(self.voxels_mm))
        last = torch.tensor([len(self.x_nodes) - 1, len(self.y_nodes) - 1], device=self.voxels_mm.device)
        for start in range(0, len(self.depth_mm), size):
            part = slice(start, start + size)
            points = replace(self.control_points, **{name: v[part] for name, v in vars(self.control_points).items()})
            bev, distance = project_to_bev(self.voxels_mm, points, self.isocentre_mm, self.model.sad_mm)
            place = torch.stack((self.x_nodes.place(bev[..., 0]), self.y_nodes.place(bev[..., 1])), dim=-1)
            inverse_square = (self.model.sad_mm / distance) ** 2 * self.fractions
            weight = self.model.weights(self.depth_mm[part].float()) * inverse_square
            yield part, (place * (2 / last) - 1)[:, None], weight.transpose(0, 1).contiguous()

    def forward(self, maps: Float[Tensor, "batch control_point kernel y_node x_node"]) -> Float[Tensor, "batch voxel"]:
        """Dose at the voxels."""
        dose = maps.new_zeros(len(maps), len(self.voxels_mm))
        for part, grid, weight in self.views():
            for one, some in zip(dose, maps[:, part], strict=True):
                one += (F.grid_sample(some, grid, align_corners=True)[:, :, 0] * weight).sum(dim=(0, 1))
        return dose

    def adjoint(self, dose: Float[Tensor, "batch voxel"]) -> Float[Tensor, "batch control_point kernel y_node x_node"]:
        """Transpose of `forward`."""
        control_points, kernels = len(self.depth_mm), len(self.model.mixture)
        maps = dose.new_empty(len(dose), control_points, kernels, len(self.y_nodes), len(self.x_nodes))
        for part, grid, weight in self.views():
            for one, some in zip(dose, maps[:, part], strict=True):
                some.copy_(_grid_sample_adjoint((weight * one)[:, :, None], some, grid))
        return maps

    def to(self, device: torch.device | str) -> Sampling:
        return replace(
            self,
            voxels_mm=self.voxels_mm.to(device),
            depth_mm=self.depth_mm.to(device),
            control_points=self.control_points.to(device),
        )


def _grid_sample_adjoint(values: Tensor, like: Tensor, grid: Tensor) -> Tensor:
    """Transpose of bilinear `grid_sample` with aligned corners and zero padding."""
    mask = [True, False]
    gradient: Tensor = torch.ops.aten.grid_sampler_2d_backward(values, like, grid, 0, 0, True, mask)[0]
    return gradient
