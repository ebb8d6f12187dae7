"""The definition of pencil-beam dose, element by element; the faster operators are tested against it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel
from lightning_vmat.dose.blur import box_profiles
from lightning_vmat.dose.ray_tracing import radiological_depth
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case


def dose_influence(
    case: Case, voxel_index: Int[Tensor, " voxel"], model: BeamModel
) -> Float[Tensor, "voxel control_point leaf_pair beamlet"]:
    """Returns the whole course's dose at each voxel per MU per fraction in each beamlet, Gy, in double precision."""
    sad_mm, beamlets = case.machine.sad_mm, case.beamlets
    voxels_mm = case.grid.centres_mm(voxel_index).double()
    bev, distance = project_to_bev(voxels_mm, case.control_points, case.isocentre_mm, sad_mm)
    inverse_square = (sad_mm / distance) ** 2
    depth = radiological_depth(case, voxel_index).double()
    edges = torch.tensor(beamlets.leaf_edges_mm), beamlets.beamlet_edges_mm
    primary = model.open_fluence(beamlets.beamlet_centres_mm, beamlets.leaf_centres_mm) * beamlets.inside_jaws
    influence = []
    for number in range(len(case.control_points)):
        along, across = (box_profiles(bev[number, :, i], edges[1 - i], model.sigma_mm) for i in (0, 1))
        kernels = torch.einsum("kg,gvl,gvb->kvlb", model.mixture, across, along)
        weights = model.weights(depth[number]) * inverse_square[number] * case.fractions
        influence.append(torch.einsum("kv,kvlb->vlb", weights, kernels) * primary)
    return torch.stack(influence, dim=1)
