"""The weighted sample of voxels on which a plan is optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.plan.case import BODY, Case


@dataclass(frozen=True)
class VoxelSample:
    """Voxels by flat index, and how many voxels each stands for.

    Args:
        index: ascending flat C-order indices into the case's grid.
        weight: number of voxels that each one represents, at least 1.
    """

    index: Int[Tensor, " voxel"]
    weight: Float[Tensor, " voxel"]

    def __len__(self) -> int:
        return len(self.index)


def all_voxels(case: Case) -> VoxelSample:
    """Every voxel of the body, each standing for itself."""
    return VoxelSample(case.body_index, torch.ones(len(case.body_index)))


def sample_voxels(case: Case, count: int, seed: int = 0) -> VoxelSample:
    """A stratified random sample: targets and organs densely, the rest of the body sparsely.

    A share of `count` goes to each stratum (targets, organs, other body); what a small stratum leaves over
    goes to the next.

    Args:
        case: the case.
        count: number of voxels, more or less; a smaller body is taken whole.
        seed: of the drawing.
    """
    if count >= len(case.body_index):
        return all_voxels(case)
    generator = torch.Generator().manual_seed(seed)
    target = case.target.flatten()
    organs = torch.stack([m.flatten() for name, m in case.structures.items() if name != BODY]).any(dim=0) & ~target
    rest = case.structures[BODY].flatten() & ~target & ~organs
    indices, weights, left = [], [], count
    for mask, share in ((target, 0.4), (organs, 2 / 3), (rest, 1.0)):  # shares of what is left: 40, 40, 20 %
        members = mask.nonzero()[:, 0]
        take = min(len(members), round(share * left))
        if take == 0:
            continue
        chosen = torch.randperm(len(members), generator=generator)[:take]
        indices.append(members[chosen])
        weights.append(torch.full((take,), len(members) / take))
        left -= take
    index, order = torch.cat(indices).sort()
    return VoxelSample(index, torch.cat(weights)[order])
