"""Blurred maps to dose: each voxel sums the maps' values at its BEV position over control points and kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.backend import runs_triton
from lightning_vmat.dose.beam_model import at_depth
from lightning_vmat.dose.blur import Nodes
from lightning_vmat.plan.beamlets import view_along

PAIRS = 1_000_000  # (control point, voxel) pairs processed at once when their look-up tables are not cached
CACHED_NODES = 100_000  # map nodes processed at once by one CPU thread, so that they stay in the cache
SHARED_NODES = 500_000  # the same for several threads, whose overhead outweighs cache misses
GPU_NODES = 50_000_000  # map nodes processed at once by the Triton kernels: 0.2 GB for each Gaussian and kernel
KEPT = 16_000_000  # largest number of pairs whose look-up tables are cached on a CPU, at 20 bytes a pair


class View(Protocol):
    """The map from blurred maps of some control points to the voxels' dose."""

    @property
    def part(self) -> slice:
        """Range of the control points."""

    def forward(self, maps: Float[Tensor, "control_point kernel y_node x_node"]) -> Float[Tensor, " voxel"]:
        """Returns the dose at the voxels, Gy, from blurred maps."""

    def adjoint(self, dose: Float[Tensor, " voxel"]) -> Float[Tensor, "control_point kernel y_node x_node"]:
        """Applies the transpose of `forward`."""


@dataclass(frozen=True)
class BevLookup:
    """Look-up tables: positions of voxels in the maps of some control points, and the weight of each map there.

    Args:
        place: position in the maps, in the coordinates of `grid_sample`.
        weight: weight of each kernel's map at each voxel, Gy.
    """

    place: Float[Tensor, "control_point 1 voxel 2"]
    weight: Float[Tensor, "control_point kernel voxel"]

    def __getitem__(self, part: slice) -> BevLookup:
        return BevLookup(self.place[part], self.weight[part])


@dataclass(frozen=True)
class TableView:
    """A view by look-up tables of positions and weights.

    Args:
        part: range of the control points.
        look: the tables.
        shape: (y_node, x_node) of the maps.
    """

    part: slice
    look: BevLookup
    shape: tuple[int, int]

    def forward(self, maps: Float[Tensor, "control_point kernel y_node x_node"]) -> Float[Tensor, " voxel"]:
        """Returns the dose at the voxels, Gy, from blurred maps."""
        seen = F.grid_sample(maps, self.look.place, align_corners=True)[:, :, 0]
        return torch.einsum("ckv,ckv->v", seen, self.look.weight)

    def adjoint(self, dose: Float[Tensor, " voxel"]) -> Float[Tensor, "control_point kernel y_node x_node"]:
        """Applies the transpose of `forward`."""
        values = (self.look.weight * dose)[:, :, None]
        like = values.new_empty(1).expand(*values.shape[:2], *self.shape)
        # the gradient of bilinear sampling by its input is its exact transpose; this call needs no autograd graph
        maps: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            values, like, self.look.place, 0, 0, True, [True, False]
        )[0]
        return maps


@dataclass(frozen=True)
class KernelView:
    """A view by the Triton kernels, which compute positions and weights instead of loading them.

    Args:
        part: range of the control points.
        sampling: geometry and depths of these control points.
    """

    part: slice
    sampling: Sampling

    def forward(self, maps: Float[Tensor, "control_point kernel y_node x_node"]) -> Float[Tensor, " voxel"]:
        """Returns the dose at the voxels, Gy, from blurred maps."""
        from lightning_vmat.dose import _triton

        return _triton.sample(self.sampling, maps)

    def adjoint(self, dose: Float[Tensor, " voxel"]) -> Float[Tensor, "control_point kernel y_node x_node"]:
        """Applies the transpose of `forward`."""
        from lightning_vmat.dose import _triton

        return _triton.spread(self.sampling, dose, deterministic=torch.are_deterministic_algorithms_enabled())


@dataclass(frozen=True)
class Sampling:
    """Position of each voxel in each beam's-eye view, and its radiological depth.

    Args:
        offset_mm: voxel centres relative to the isocentre, patient LPS.
        depth_mm: radiological depth, half precision (0.1 mm at 200 mm).
        axes: x_b, y_b, z_b of each control point in patient LPS, as rows.
        depth_weights: weight of each kernel at depths 0, 1, 2, ... mm, Gy of the whole course per MU per fraction.
        sad_mm: source-axis distance.
        y_nodes: rows of the maps.
        x_nodes: columns of the maps.
        kept: cached look-up tables of all control points, or None.
    """

    offset_mm: Float[Tensor, "voxel 3"]
    depth_mm: Float[Tensor, "control_point voxel"]
    axes: Float[Tensor, "control_point 3 3"]
    depth_weights: Float[Tensor, "kernel depth"]
    sad_mm: float
    y_nodes: Nodes
    x_nodes: Nodes
    kept: BevLookup | None = None

    @property
    def map_shape(self) -> tuple[int, int]:
        """Shape of the blurred maps (y_node, x_node)."""
        return len(self.y_nodes), len(self.x_nodes)

    def keep(self) -> Sampling:
        """Returns the sampling with cached look-up tables if it runs on the CPU and they are small enough."""
        wanted = not runs_triton(self.offset_mm) and not self.offset_mm.is_cuda and self.depth_mm.numel() <= KEPT
        return replace(self, kept=self.look() if wanted else None)

    def look(self) -> BevLookup:
        """Returns the look-up tables of all control points."""
        looks = [self.look_from(part) for part in self._parts(max(1, PAIRS // len(self.offset_mm)))]
        return BevLookup(torch.cat([look.place for look in looks]), torch.cat([look.weight for look in looks]))

    def look_from(self, part: slice) -> BevLookup:
        """Returns the look-up tables of some control points."""
        return self._at(part)._look()

    def views(self) -> Iterator[View]:
        """Yields the views of successive ranges of control points, sized for cache and memory."""
        nodes = len(self.x_nodes) * len(self.y_nodes)
        if runs_triton(self.offset_mm):
            for part in self._parts(max(1, GPU_NODES // nodes)):
                yield KernelView(part, self._at(part))
            return
        by_voxels = PAIRS // len(self.offset_mm)
        by_nodes = (CACHED_NODES if torch.get_num_threads() == 1 else SHARED_NODES) // nodes
        for part in self._parts(max(1, by_voxels if self.offset_mm.is_cuda else min(by_voxels, by_nodes))):
            look = self.look_from(part) if self.kept is None else self.kept[part]
            yield TableView(part, look, self.map_shape)

    def _parts(self, size: int) -> Iterator[slice]:
        return (slice(start, start + size) for start in range(0, len(self.depth_mm), size))

    def _at(self, part: slice) -> Sampling:
        return replace(self, depth_mm=self.depth_mm[part], axes=self.axes[part], kept=None)

    def _look(self) -> BevLookup:
        bev, distance = view_along(self.axes, self.offset_mm, self.sad_mm)
        x, y = self.x_nodes.place(bev[..., 0]), self.y_nodes.place(bev[..., 1])
        # node numbers -> -1 at the first node, 1 at the last (align_corners=True)
        place = torch.stack((x * (2 / (len(self.x_nodes) - 1)) - 1, y * (2 / (len(self.y_nodes) - 1)) - 1), dim=-1)
        weight = (
            at_depth(self.depth_weights, self.depth_mm.to(self.depth_weights.dtype)) * (self.sad_mm / distance) ** 2
        )
        return BevLookup(place[:, None], weight.transpose(0, 1).contiguous())

    def to(self, device: torch.device | str) -> Sampling:
        """Returns the sampling on a device; look-up tables are cached or dropped as `keep` decides there."""
        if torch.device(device) == self.offset_mm.device:
            return self
        tensors = ("offset_mm", "depth_mm", "axes", "depth_weights")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors}).keep()
