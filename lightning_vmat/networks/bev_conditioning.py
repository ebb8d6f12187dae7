"""What each beamlet's ray passes through: the beam's-eye-view channels that condition the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.ray_tracing import relative_electron_density, trace_rays
from lightning_vmat.plan.case import BODY, Case

LENGTH_MM = 100.0  # thickness and depth of this size are 1
RAY_STEP_MM = 2.5


def channel_names(structures: Sequence[str]) -> tuple[str, ...]:
    """Names of the channels, in their order."""
    return "targets by prescription", "depth to the isocentre plane", *structures


def bev_channels(case: Case, structures: Sequence[str]) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Thickness of targets and structures, and depth of the isocentre, along the ray of every beamlet.

    Where targets overlap the highest prescription counts. All lengths are in units of 100 mm, so that a network sees
    numbers around 1; a structure that the case lacks has thickness zero.

    Args:
        case: the case.
        structures: organs (and targets) to tell apart, one channel each.

    Returns:
        The channels that `channel_names` names, on the grid of the fluence.

    Raises:
        ValueError: no structures, or one that is named twice.
    """
    if not structures or len(set(structures)) != len(structures):
        raise ValueError(f"condition structures {list(structures)}: expected one or more names, each once")
    nothing = torch.zeros(case.grid.shape)
    masks = [case.structures[name].float() if name in case.structures else nothing for name in structures]
    thickness = _trace(case, torch.stack([_relative_prescription(case), *masks]))
    density = relative_electron_density(case.hu.float()) * case.structures[BODY]
    depth = _trace(case, density[None], stop_mm=case.machine.sad_mm)
    return torch.cat((thickness[:1], depth, thickness[1:])) / LENGTH_MM


def _relative_prescription(case: Case) -> Float[Tensor, "z y x"]:
    """Prescribed dose over the highest prescription, in each voxel; zero outside the targets."""
    highest = max(case.prescription_gy.values())
    parts = [case.structures[name] * (dose_gy / highest) for name, dose_gy in case.prescription_gy.items()]
    return torch.stack(parts).amax(dim=0)


def _trace(
    case: Case, volume: Float[Tensor, "channel z y x"], stop_mm: float | None = None
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    return trace_rays(
        volume,
        case.grid,
        case.isocentre_mm,
        case.control_points,
        case.machine.sad_mm,
        case.beamlets.beamlet_centres_mm,
        case.beamlets.leaf_centres_mm,
        RAY_STEP_MM,
        stop_mm,
    )
