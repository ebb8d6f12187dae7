"""The beam's-eye-view channels that condition the networks: integrals along each beamlet's ray, and wishes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.ray_tracing import relative_electron_density, trace_rays
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.wishes import WISHES, log_wishes

LENGTH_MM = 100.0  # unit of thickness and depth
RAY_STEP_MM = 2.5


def channel_names(structures: Sequence[str], wishes: bool = False) -> tuple[str, ...]:
    """Returns the names of the channels, in order."""
    wished = [f"wish {name}" for name in WISHES] if wishes else []
    return "targets by prescription", "depth to the isocentre plane", *structures, *wished


def bev_channels(
    case: Case, structures: Sequence[str], wishes: bool = False
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns thicknesses of targets and structures and the isocentre's depth along each beamlet's ray, and wishes.

    Where targets overlap, the highest prescription counts. Lengths are in units of 100 mm, so that the network's inputs
    are around 1. A structure that the case lacks has thickness zero.

    Args:
        case: the case.
        structures: organs (and targets), one channel each.
        wishes: whether to add a channel for each of `plan.wishes.WISHES`, the logarithm of its factor (0: no wish).

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
    channels = torch.cat((thickness[:1], depth, thickness[1:])) / LENGTH_MM
    return torch.cat((channels, wish_channels(case))) if wishes else channels


def wish_channels(case: Case) -> Float[Tensor, "wish control_point leaf_pair beamlet"]:
    """Returns the natural logarithm of each of `plan.wishes.WISHES`, constant over the beamlets."""
    return torch.tensor(log_wishes(case.wishes))[:, None, None, None].expand(-1, *case.fluence_shape)


def _relative_prescription(case: Case) -> Float[Tensor, "z y x"]:
    """Returns each voxel's prescription over the highest one; zero outside the targets."""
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
