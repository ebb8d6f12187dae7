"""Blur of fluence maps: exact convolution of rectangles with sums of Gaussians, as products of small matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel
from lightning_vmat.plan.beamlets import BeamletGrid

NODE_STEP_MM = 1.25  # for optimisation: the error averages out over a field
FINE_NODE_STEP_MM = 0.25  # for evaluation: even a single beamlet is within 0.2 % of the definition
OUTER_STEP_MM = 8.0
EDGE_MM = 15.0  # extent of fine nodes beyond the field: primary and penumbra end there, scatter is smooth


@dataclass(frozen=True)
class Nodes:
    """Node positions along one axis: fine steps over the field and its edge, coarse steps beyond.

    Args:
        low_mm: first fine node.
        fine: number of fine steps.
        before: number of coarse steps before the fine ones.
        after: number of coarse steps after them.
        step_mm: the fine step.
    """

    low_mm: float
    fine: int
    before: int
    after: int
    step_mm: float

    @classmethod
    def over(cls, field_mm: tuple[float, float], reach_mm: tuple[float, float], step_mm: float) -> Nodes:
        """Returns fine nodes over a field and coarse ones as far as `reach_mm`."""
        low = field_mm[0] - EDGE_MM
        fine = math.ceil((field_mm[1] + EDGE_MM - low) / step_mm)
        high = low + fine * step_mm
        before = max(0, math.ceil((low - reach_mm[0]) / OUTER_STEP_MM))
        after = max(0, math.ceil((reach_mm[1] - high) / OUTER_STEP_MM))
        return cls(low, fine, before, after, step_mm)

    @property
    def high_mm(self) -> float:
        """Position of the last fine node."""
        return self.low_mm + self.fine * self.step_mm

    def __len__(self) -> int:
        return self.before + self.fine + 1 + self.after

    def positions_mm(self) -> Float[Tensor, " node"]:
        """Returns the positions of all nodes, ascending."""
        before = self.low_mm - OUTER_STEP_MM * torch.arange(self.before, 0, -1)
        fine = self.low_mm + self.step_mm * torch.arange(self.fine + 1)
        after = self.high_mm + OUTER_STEP_MM * torch.arange(1, self.after + 1)
        return torch.cat((before, fine, after))

    def place(self, position_mm: Float[Tensor, "*point"]) -> Float[Tensor, "*point"]:
        """Returns the continuous node number of positions, clamped to the first and last node."""
        # piecewise linear: the part of the position inside the fine interval in fine steps, the rest in coarse ones
        inside = position_mm.clamp(self.low_mm, self.high_mm)
        number = self.before + (inside - self.low_mm) / self.step_mm + (position_mm - inside) / OUTER_STEP_MM
        return number.clamp(0, len(self) - 1)


@dataclass(frozen=True)
class Blur:
    """Linear map from a fluence map to one blurred map for each kernel, at the nodes of a product grid.

    Args:
        across: each leaf pair's width convolved with each Gaussian, at the y nodes.
        along: each beamlet's width convolved with each Gaussian, at the x nodes.
        mixture: weight of each Gaussian in each kernel.
        open_fluence: fluence of the open beam at each beamlet's centre, relative to the axis; zero behind jaws.
    """

    across: Float[Tensor, "gaussian y_node leaf_pair"]
    along: Float[Tensor, "gaussian x_node beamlet"]
    mixture: Float[Tensor, "kernel gaussian"]
    open_fluence: Float[Tensor, "leaf_pair beamlet"]

    @classmethod
    def build(cls, model: BeamModel, beamlets: BeamletGrid, y_nodes: Nodes, x_nodes: Nodes) -> Blur:
        """Returns the blur of a beam model on a beamlet grid, sampled at the nodes."""
        # linear interpolation between nodes convolves with a hat function of variance h^2 / 6, so the Gaussians are
        # narrower by that; their width after interpolation is the model's
        edges = torch.tensor(beamlets.leaf_edges_mm), beamlets.beamlet_edges_mm
        across, along = (
            box_profiles(nodes.positions_mm(), e, (model.sigma_mm**2 - nodes.step_mm**2 / 6).sqrt()).float()
            for nodes, e in zip((y_nodes, x_nodes), edges, strict=True)
        )
        return cls(
            across,
            along,
            model.mixture.float(),
            model.open_fluence(beamlets.beamlet_centres_mm, beamlets.leaf_centres_mm).float() * beamlets.inside_jaws,
        )

    def forward(self, fluence: Float[Tensor, "map leaf_pair beamlet"]) -> Float[Tensor, "map kernel y_node x_node"]:
        """Returns the blurred maps of fluence maps."""
        maps, (rows, columns) = len(fluence), (self.across.shape[1], self.along.shape[1])
        fluence = fluence * self.open_fluence
        spread = fluence.flatten(0, 1) @ self.along.flatten(0, 1).T  # one large product over all maps and Gaussians
        spread = spread.view(maps, -1, len(self.along), columns).permute(2, 1, 0, 3).flatten(2)
        gaussians = self.across @ spread  # kernels share the Gaussians, so each is blurred once and mixed last
        return (self.mixture @ gaussians.flatten(1)).view(-1, rows, maps, columns).permute(2, 0, 1, 3)

    def adjoint(self, maps: Float[Tensor, "map kernel y_node x_node"]) -> Float[Tensor, "map leaf_pair beamlet"]:
        """Applies the transpose of `forward`: the same products, transposed and in reverse order."""
        count, kernels, rows, columns = maps.shape
        gaussians = self.mixture.T @ maps.permute(1, 2, 0, 3).reshape(kernels, -1)
        spread = self.across.mT @ gaussians.view(-1, rows, count * columns)
        spread = spread.unflatten(2, (count, columns)).permute(2, 1, 0, 3).flatten(2)
        fluence: Tensor = (spread @ self.along.flatten(0, 1)) * self.open_fluence
        return fluence

    def to(self, device: torch.device | str) -> Blur:
        """Returns the blur on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


def box_profiles(
    position_mm: Float[Tensor, " position"], edges_mm: Float[Tensor, " edge"], sigma_mm: Float[Tensor, " gaussian"]
) -> Float[Tensor, "gaussian position interval"]:
    """Returns the integral of unit Gaussians centred at positions over each interval between edges."""
    z = (edges_mm.double() - position_mm.double()[:, None]) / (sigma_mm.double()[:, None, None] * 2**0.5)
    return torch.erf(z).diff(dim=-1) / 2
