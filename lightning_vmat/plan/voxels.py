"""The weighted sample of voxels on which a plan is optimised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.volume import VolumeGrid

SHARES = {"targets": 0.3, "shell": 0.3, "organs": 0.2, "body": 0.2}  # of the sample, before regions overlap
SHELL_MM = 20.0  # thickness of the shell around the targets


@dataclass(frozen=True)
class VoxelSample:
    """Voxels by flat index, and the number of voxels that each represents.

    Args:
        index: ascending flat C-order indices into the case's grid.
        weight: number of voxels that each one represents, at least 1.
    """

    index: Int[Tensor, " voxel"]
    weight: Float[Tensor, " voxel"]

    def __len__(self) -> int:
        return len(self.index)


def all_voxels(case: Case) -> VoxelSample:
    """Returns all voxels on which plans are evaluated, each with weight 1."""
    return VoxelSample(case.body_index, torch.ones(len(case.body_index), device=case.hu.device))


def sample_voxels(case: Case, count: int, seed: int = 0) -> VoxelSample:
    """Draws a random sample of voxels, dense in targets, in a shell around them and in small organs, sparse elsewhere.

    Systematic sampling with unequal probabilities: voxel v is drawn with probability `p_v`, at most 1 and proportional
    to the highest density of its regions (`_density`), and represents `1 / p_v` voxels, so sums over the sample are
    unbiased. The shell has its own share because dose falls off there: with few voxels in it, planners overfit.

    Args:
        case: the case.
        count: approximate number of voxels; if the body has fewer, all are taken.
        seed: seed of the random offset.

    Reference: Madow, Ann Math Stat 20:333 (1949).
    """
    if count >= len(case.body_index):
        return all_voxels(case)
    density = _density(case)[case.body_index].double()
    chance = (density * count / density.sum()).clamp(max=1.0)
    for _ in range(20):  # clamping at 1 lowers the expected count; scaling raises the other probabilities to restore it
        chance = (chance * count / chance.sum()).clamp(max=1.0)
    offset = torch.rand((), dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    passed = (chance.cumsum(dim=0) + offset).floor()  # one draw wherever the cumulative probability passes an integer
    chosen = passed.diff(prepend=passed.new_zeros(1)) > 0
    return VoxelSample(case.body_index[chosen], (1 / chance[chosen]).float())


def _density(case: Case) -> Float[Tensor, " voxel"]:
    """Returns the relative density of the sample: each region of `SHARES` spreads its share evenly over its voxels."""
    body, target = case.structures[BODY], case.target
    shell = _grown(target, case.grid) & ~target
    organs = [mask & ~target for name, mask in case.structures.items() if name not in (BODY, *case.target_names)]
    regions = [(body, SHARES["body"]), (target, SHARES["targets"]), (shell, SHARES["shell"])]
    regions += [(organ, SHARES["organs"] / len(organs)) for organ in organs]
    density = torch.zeros(case.grid.shape, device=case.hu.device)
    for region, share in regions:
        density = torch.maximum(density, region * (share / max(int(region.sum()), 1)))
    return density.flatten()


def _grown(mask: Bool[Tensor, "z y x"], grid: VolumeGrid) -> Bool[Tensor, "z y x"]:
    """Returns the mask grown by a box of `SHELL_MM` to each side."""
    grown = mask[None, None].float()
    for axis, spacing_mm in zip((4, 3, 2), grid.spacing_mm, strict=True):
        reach, window = round(SHELL_MM / spacing_mm), [1, 1, 1]
        window[axis - 2] = 2 * reach + 1
        grown = F.max_pool3d(grown, window, stride=1, padding=[length // 2 for length in window])
    return grown[0, 0].bool()
