"""Rows of a dose operator at few voxels, averaged over cells of beamlets, for coarse models of the dose."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.pencil_beam import PencilBeamOperator

Cell = tuple[int, int, int]
ONE_HOT_ROWS = 16  # adjoints at once where rows have to be asked for one by one


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
        planes = [_pool(few.block(number)[:, None], (1, *cell[1:])) for number in range(operator.fluence_shape[0])]
        return _pool(torch.cat(planes, dim=1), (cell[0], 1, 1))
    rows = []
    for some in voxels.split(ONE_HOT_ROWS):
        weights = torch.zeros(len(some), operator.voxel_count, device=some.device)
        weights[torch.arange(len(some)), some] = 1.0
        rows.append(_pool(operator.adjoint(weights), cell))
    return torch.cat(rows)


def _pool(maps: Float[Tensor, "row c l b"], cell: Cell) -> Float[Tensor, "row cc ll bb"]:
    pooled: Tensor = F.avg_pool3d(maps, cell, stride=cell, ceil_mode=True, count_include_pad=False)
    return pooled
