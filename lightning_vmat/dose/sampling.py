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

PAIRS = 1_000_000  # (control point, voxel) pairs worked on at once
CACHED_NODES = 100_000  # map nodes worked on at once on a CPU
KEPT = 16_000_000  # pairs whose view is kept, at 20 bytes a pair


@dataclass(frozen=True)
class View:
    """What some of the control points see of the voxels.

    Args:
        part: which control points.
        grid: place of each voxel in the maps, as `grid_sample` counts it.
        weight: weight of each kernel's map at each voxel.
    """

    part: slice
    grid: Float[Tensor, "control_point 1 voxel 2"]
    weight: Float[Tensor, "control_point kernel voxel"]

    def forward(self, maps: Float[Tensor, "control_point kernel y_node x_node"]) -> Float[Tensor, " voxel"]:
        """Dose at the voxels."""
        seen = F.grid_sample(maps, self.grid, align_corners=True)[:, :, 0]
        return torch.einsum("ckv,ckv->v", seen, self.weight)

    def adjoint(
        self, dose: Float[Tensor, " voxel"], shape: tuple[int, int]
    ) -> Float[Tensor, "control_point kernel y_node x_node"]:
        """Transpose of `forward`, for maps of a shape."""
        values = (self.weight * dose)[:, :, None]
        like = values.new_empty(1).expand(*values.shape[:2], *shape)
        maps: Tensor = torch.ops.aten.grid_sampler_2d_backward(values, like, self.grid, 0, 0, True, [True, False])[0]
        return maps


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
        """What is seen, part by part of the control points."""
        return self._look() if self._views is None else self._views

    def _look(self) -> Iterator[View]:
        last = torch.tensor([len(self.x_nodes) - 1, len(self.y_nodes) - 1], device=self.voxels_mm.device)
        for start in range(0, len(self.depth_mm), self.part_size):
            part = slice(start, start + self.part_size)
            points = replace(self.control_points, **{name: v[part] for name, v in vars(self.control_points).items()})
            bev, distance = project_to_bev(self.voxels_mm, points, self.isocentre_mm, self.model.sad_mm)
            place = torch.stack((self.x_nodes.place(bev[..., 0]), self.y_nodes.place(bev[..., 1])), dim=-1)
            inverse_square = (self.model.sad_mm / distance) ** 2 * self.fractions
            weight = self.model.weights(self.depth_mm[part].float()) * inverse_square
            yield View(part, (place * (2 / last) - 1)[:, None], weight.transpose(0, 1).contiguous())

    @property
    def map_shape(self) -> tuple[int, int]:
        """(y_node, x_node)."""
        return len(self.y_nodes), len(self.x_nodes)

    @property
    def part_size(self) -> int:
        """Control points worked on together: on a CPU, so few that their maps stay in its cache."""
        by_voxels = PAIRS // len(self.voxels_mm)
        by_nodes = CACHED_NODES // (len(self.x_nodes) * len(self.y_nodes))
        return max(1, by_voxels if self.voxels_mm.is_cuda else min(by_voxels, by_nodes))

    def to(self, device: torch.device | str) -> Sampling:
        return replace(
            self,
            voxels_mm=self.voxels_mm.to(device),
            depth_mm=self.depth_mm.to(device),
            control_points=self.control_points.to(device),
        )
