"""The weighted sample of voxels on which a plan is optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.volume import VolumeGrid

SHARES = {"targets": 0.3, "shell": 0.3, "organs": 0.2, "rest": 0.2}  # of the sample
SHELL_MM = 20.0  # thickness of the shell around the targets


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
    """A stratified sample: targets, a shell around them and organs densely, the rest of the body sparsely.

    Each stratum gets its share of `count`; what a small one leaves over goes to the next. Within a stratum the voxels
    are cut, in raster order, into equal runs, and one voxel is drawn from each: more even than independent draws. The
    shell matters: dose falls off there, and a planner overfits to a sample that hardly looks at it.

    Args:
        case: the case.
        count: number of voxels, more or less; a smaller body is taken whole.
        seed: of the drawing.
    """
    if count >= len(case.body_index):
        return all_voxels(case)
    generator = torch.Generator().manual_seed(seed)
    indices, weights = [], []
    left, shares_left = count, sum(SHARES.values())
    for stratum, share in zip(_strata(case), SHARES.values(), strict=True):
        members = stratum.nonzero()[:, 0]
        take = min(len(members), round(left * share / shares_left))
        left, shares_left = left - take, shares_left - share
        if take > 0:
            run = len(members) / take
            chosen = (run * (torch.arange(take) + torch.rand(take, generator=generator))).long()
            indices.append(members[chosen.clamp(max=len(members) - 1)])
            weights.append(torch.full((take,), run))
    index, order = torch.cat(indices).sort()
    return VoxelSample(index, torch.cat(weights)[order])


def _strata(case: Case) -> list[Bool[Tensor, " voxel"]]:
    """The strata of `SHARES`: masks over the flat grid that do not overlap and make up the body."""
    target = case.target.flatten()
    shell = _grown(case.target, case.grid).flatten() & case.structures[BODY].flatten() & ~target
    named = [mask.flatten() for name, mask in case.structures.items() if name != BODY]
    organs = torch.stack(named).any(dim=0) & ~target & ~shell
    return [target, shell, organs, case.structures[BODY].flatten() & ~target & ~shell & ~organs]


def _grown(mask: Bool[Tensor, "z y x"], grid: VolumeGrid) -> Bool[Tensor, "z y x"]:
    """The mask grown by a box of `SHELL_MM` to each side."""
    grown = mask[None, None].float()
    for axis, spacing_mm in zip((4, 3, 2), grid.spacing_mm, strict=True):
        reach, window = round(SHELL_MM / spacing_mm), [1, 1, 1]
        window[axis - 2] = 2 * reach + 1
        grown = F.max_pool3d(grown, window, stride=1, padding=[length // 2 for length in window])
    return grown[0, 0].bool()
