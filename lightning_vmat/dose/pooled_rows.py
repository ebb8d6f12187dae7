"""Rows of a dose operator at few voxels, averaged over cells of beamlets, for coarse models of the dose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.plan.shapes import FluenceMaps

Cell = tuple[int, int, int]
Cells = Float[Tensor, "*batch cell"]
ONE_HOT_ROWS = 16  # adjoints at once where rows have to be asked for one by one


@dataclass(frozen=True)
class BeamletCells:
    """Cells of neighbouring control points, leaf pairs and beamlets of a fluence map.

    Args:
        seen: numbers of the cells that give dose, among all.
        shape: (control_point, leaf_pair, beamlet) of the maps.
        cell: control points, leaf pairs and beamlets of a cell; cells at the upper ends may be smaller.
    """

    seen: Int[Tensor, " cell"]
    shape: tuple[int, int, int]
    cell: Cell

    @classmethod
    def seen_by(
        cls, rows: Float[Tensor, "row cc ll bb"], shape: tuple[int, int, int], cell: Cell
    ) -> tuple[Float[Tensor, "row cell"], BeamletCells]:
        """Returns the rows of the cells that give dose, and these cells.

        Args:
            rows: dose of all cells, as `pooled_rows` returns it.
            shape: shape of the maps.
            cell: size of a cell.
        """
        flat = rows.flatten(1)
        seen = flat.any(dim=0).nonzero()[:, 0]
        return flat[:, seen].contiguous(), cls(seen, shape, cell)

    def sums(self, maps: FluenceMaps) -> Cells:
        """Returns the sum over each cell."""
        beyond = [-length % of for length, of in zip(self.shape, self.cell, strict=True)]
        padded = F.pad(maps.reshape(-1, *self.shape), (0, beyond[2], 0, beyond[1], 0, beyond[0]))
        means: Tensor = F.avg_pool3d(padded, self.cell, stride=self.cell)
        return (means.flatten(1)[:, self.seen] * math.prod(self.cell)).reshape(*maps.shape[:-3], len(self.seen))

    def spread(self, cells: Cells) -> FluenceMaps:
        """Returns each cell's value at all of its beamlets: the transpose of `sums`."""
        counts = [-(-length // of) for length, of in zip(self.shape, self.cell, strict=True)]
        maps = cells.new_zeros(*cells.shape[:-1], math.prod(counts)).index_copy(-1, self.seen, cells)
        maps = maps.unflatten(-1, counts)
        for axis, of in enumerate(self.cell):
            maps = maps.repeat_interleave(of, dim=axis - 3) if of > 1 else maps
        spread: Tensor = maps[..., : self.shape[0], : self.shape[1], : self.shape[2]]
        return spread

    def to(self, device: torch.device | str) -> BeamletCells:
        """Returns the cells on a device."""
        return BeamletCells(self.seen.to(device), self.shape, self.cell)


@torch.no_grad()
def pooled_rows(
    operator: DoseOperator, voxels: Int[Tensor, " row"], cell: Cell
) -> Float[Tensor, "row control_points leaf_pairs beamlets"]:
    """Mean dose per MU over cells of neighbouring control points, leaf pairs and beamlets.

    Args:
        operator: the dose operator.
        voxels: numbers of its voxels.
        cell: control points, leaf pairs and beamlets of a cell; cells at the upper ends may be smaller.

    Returns:
        Gy per MU in each beamlet of a cell.
    """
    if isinstance(operator, PencilBeamOperator):
        few = operator.at(voxels)
        points, rows = range(operator.fluence_shape[0]), []
        for first in points[:: cell[0]]:  # one cell at a time: all planes at once would be the size of the operator
            planes = [_pool(few.block(number)[:, None], (1, *cell[1:])) for number in points[first : first + cell[0]]]
            rows.append(torch.stack(planes).mean(dim=0))
        return torch.cat(rows, dim=1)
    rows = []
    for some in voxels.split(ONE_HOT_ROWS):
        weights = torch.zeros(len(some), operator.voxel_count, device=some.device)
        weights[torch.arange(len(some)), some] = 1.0
        rows.append(_pool(operator.adjoint(weights), cell))
    return torch.cat(rows)


def _pool(maps: Float[Tensor, "row c l b"], cell: Cell) -> Float[Tensor, "row cc ll bb"]:
    """Returns the means over cells, axis by axis as products with a small matrix."""
    for axis, of in enumerate(cell, start=-3):
        if of > 1:
            number = torch.arange(maps.shape[axis], device=maps.device) // of
            members = F.one_hot(number).to(maps)
            maps = (maps.movedim(axis, -1) @ (members / members.sum(dim=0))).movedim(-1, axis)
    return maps
