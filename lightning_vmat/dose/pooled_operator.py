"""A small dose operator for exploration: few voxels, and beamlets of neighbouring control points taken together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator, check_last, result_type
from lightning_vmat.dose.pooled_rows import BeamletCells, Cell, pooled_rows
from lightning_vmat.plan.shapes import FluenceMaps


@dataclass(frozen=True)
class PooledOperator:
    """Dose as one small dense matrix over cells of beamlets.

    Within a cell every beamlet gives the cell's mean dose per MU, so that the matrix has fewer columns. Beamlets that
    give no dose, such as those behind jaws, are left out.

    Args:
        rows: mean dose to each voxel of one MU in a beamlet of each cell, Gy.
        cells: the cells of beamlets.
    """

    rows: Float[Tensor, "voxel cell"]
    cells: BeamletCells

    @classmethod
    def of(cls, operator: DoseOperator, cell: Cell) -> PooledOperator:
        """Returns the pooled form of an operator with few voxels.

        Args:
            operator: the operator; its matrix over cells is made as a whole.
            cell: control points, leaf pairs and beamlets of a cell.
        """
        voxels = torch.arange(operator.voxel_count)
        rows, cells = BeamletCells.seen_by(pooled_rows(operator, voxels, cell), operator.fluence_shape, cell)
        return cls(rows, cells)

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""
        return len(self.rows)

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """Shape of fluence maps (control_point, leaf_pair, beamlet)."""
        return self.cells.shape

    @torch.no_grad()
    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose of the whole course, Gy; records no gradient."""
        check_last(fluence_mu, self.fluence_shape, "fluence")
        dose: Tensor = self.cells.sums(fluence_mu.float()) @ self.rows.T
        return dose.to(result_type(fluence_mu))

    @torch.no_grad()
    def adjoint(self, dose_weight: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """Returns the transpose applied to weights of the voxels' dose; records no gradient."""
        check_last(dose_weight, (self.voxel_count,), "dose")
        return self.cells.spread(dose_weight.float() @ self.rows).to(result_type(dose_weight))

    def to(self, device: torch.device | str) -> PooledOperator:
        """Returns the operator on a device."""
        return PooledOperator(self.rows.to(device), self.cells.to(device))

    def tensors(self) -> list[Tensor]:
        """Returns the tensors for `restore`: the matrix, and the numbers of its cells."""
        return [self.rows, self.cells.seen]

    def settings(self) -> str:
        """Returns as text what `restore` needs besides the tensors: the shapes of maps and cells."""
        return json.dumps([self.cells.shape, self.cells.cell])

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> PooledOperator:
        """Rebuilds an operator from `tensors()` and `settings()`."""
        (rows, seen), (shape, cell) = tensors, json.loads(settings)
        return cls(rows, BeamletCells(seen, tuple(shape), tuple(cell)))
