"""Random problems with what makes real ones hard: non-negative, blurred, ill-conditioned dose; one-sided terms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.l2o.problem import Problem

SHAPE = (6, 8, 8)


class ToyOperator:
    """Sparse rays, blurred over neighbouring voxels."""

    def __init__(self, matrix: Float[Tensor, "voxel ray"], shape: tuple[int, int, int]) -> None:
        self.matrix, self.fluence_shape, self.voxel_count = matrix, shape, len(matrix)

    def forward(self, fluence: Float[Tensor, "*batch cp lp b"]) -> Float[Tensor, "*batch voxel"]:
        return fluence.flatten(-3) @ self.matrix.T

    def adjoint(self, dose: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch cp lp b"]:
        return (dose @ self.matrix).unflatten(-1, self.fluence_shape)

    def to(self, device: torch.device | str) -> Self:
        return type(self)(self.matrix.to(device), self.fluence_shape)

    def tensors(self) -> list[Tensor]:
        return [self.matrix]

    def settings(self) -> str:
        return json.dumps(self.fluence_shape)

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> Self:
        return cls(tensors[0], tuple(json.loads(settings)))


@dataclass(frozen=True)
class ToyObjective:
    """`sum over under (low - d)+^2 + sum over over (d - high)+^2`."""

    low: Float[Tensor, " voxel"]
    high: Float[Tensor, " voxel"]
    under: Float[Tensor, " voxel"]
    over: Float[Tensor, " voxel"]

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch"]:
        below, above = (self.low - dose_gy).relu(), (dose_gy - self.high).relu()
        return (self.under * below.square() + self.over * above.square()).sum(-1)

    def gradient(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch voxel"]:
        return 2 * (self.over * (dose_gy - self.high).relu() - self.under * (self.low - dose_gy).relu())

    def curvature(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch voxel"]:
        return 2 * (self.under * (dose_gy < self.low) + self.over * (dose_gy > self.high))

    def to(self, device: torch.device | str) -> Self:
        return type(self)(*(t.to(device) for t in (self.low, self.high, self.under, self.over)))


def toy_problem(seed: int, shape: tuple[int, int, int] = SHAPE, side: int = 16) -> Problem:
    """A disc-shaped target with a neighbour to spare in a round slice stack, seen by a few parallel beams."""
    generator = torch.Generator().manual_seed(seed)
    control_points, leaf_pairs, beamlets = shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    z = torch.linspace(-1, 1, leaf_pairs)
    angles = torch.arange(control_points) * 2 * torch.pi / control_points + torch.rand(1, generator=generator)
    across = x[None] * angles.cos()[:, None, None] + y[None] * angles.sin()[:, None, None]
    along = y[None] * angles.cos()[:, None, None] - x[None] * angles.sin()[:, None, None]
    centres = torch.linspace(-0.8, 0.8, beamlets)
    rows = (-((z[:, None] - z[None]) ** 2) / 0.08).exp() + 0.02  # scatter into other slices
    columns = (-((across[..., None] - centres) ** 2) / 0.03).exp() + 0.03
    columns = columns * (-0.5 * (along + 1))[..., None].exp()
    matrix = torch.einsum("sl,cyxb->syxclb", rows, columns).reshape(leaf_pairs * side * side, -1)
    centre = 0.3 * torch.rand(2, generator=generator) - 0.15
    radius = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt()
    size = 0.3 + 0.15 * torch.rand(1, generator=generator)
    target = (radius < size)[None] & (z.abs() < 0.7)[:, None, None]
    organ = ((x - centre[0] - size - 0.1).square() + (y - centre[1]).square() < 0.06)[None] & ~target
    body = ((x**2 + y**2 < 1.0)[None] | target).expand(leaf_pairs, -1, -1)
    weight = 1 + 4 * torch.rand(1, generator=generator)
    kept = body.flatten()
    target, organ = target.expand_as(body).flatten()[kept], organ.expand_as(body).flatten()[kept]
    high = torch.where(target, 62.0, torch.where(organ, 15.0, 30.0))
    objective = ToyObjective(
        low=torch.where(target, 60.0, 0.0),
        high=high,
        under=target / target.sum(),
        over=torch.where(target, 1 / target.sum(), torch.where(organ, weight / organ.sum(), 1 / kept.sum())),
    )
    matrix = matrix[kept]
    scale = float(60 / matrix.sum(dim=1)[target].mean())
    hit = (matrix[target].sum(dim=0) > matrix[target].sum(dim=0).median()).reshape(shape)
    projection = DoseProjection(ToyOperator(matrix, shape))
    places = torch.stack(torch.broadcast_tensors(x[None], y[None], z[:, None, None]), dim=-1).reshape(-1, 3)[kept]
    return Problem(f"toy {seed}", projection, objective, scale, hit.float(), 100 * places, target)
