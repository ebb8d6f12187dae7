"""The sampled voxels of each structure of a case, with their distances to the targets."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from lightning_vmat.objectives.base import StructureVoxels
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid
from lightning_vmat.plan.voxels import VoxelSample


def distance_mm(
    mask: Bool[Tensor, "z y x"],
    grid: VolumeGrid,
    index: Int[Tensor, " voxel"],
) -> Float[Tensor, " voxel"]:
    """Returns the distance from voxel centres to the nearest voxel centre of a mask; zero inside."""
    x, y, z = grid.spacing_mm
    distance = distance_transform_edt(~mask.cpu().numpy(), sampling=(z, y, x))
    return torch.from_numpy(distance).float().flatten()[index.cpu()]


def sampled_structures(case: Case, sample: VoxelSample) -> dict[str, StructureVoxels]:
    """Returns the sampled voxels of every structure that has any, on the device of the sample."""
    index = sample.index.cpu()
    weight = sample.weight.float().cpu()
    distances = torch.stack([distance_mm(case.structures[name], case.grid, index) for name in case.target_names])
    prescriptions = torch.tensor([case.prescription_gy[name] for name in case.target_names])
    structures = {}
    for name, mask in case.structures.items():
        place = mask.cpu().flatten()[index].nonzero()[:, 0]
        if len(place):
            inside = weight[place]
            structures[name] = StructureVoxels(
                index=place,
                fraction=inside / inside.sum(),
                volume_cc=inside * case.grid.voxel_volume_cc,
                target_distance_mm=distances[:, place],
                target_prescription_gy=prescriptions,
            ).to(sample.index.device)
    return structures
