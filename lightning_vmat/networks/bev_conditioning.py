"""The channels that condition the networks: integrals along each beamlet's ray, wishes, and arcs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.ray_tracing import relative_electron_density, trace_rays
from lightning_vmat.networks.arc_channels import ARC_CHANNELS, arc_channels
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.wishes import WISHES, log_wishes

LENGTH_MM = 100.0  # unit of thickness and depth
RAY_STEP_MM = 2.5


Wishes = bool | Sequence[str]
"""Which wishes a network sees: none, those of `plan.wishes.WISHES`, or the ones named."""


def wish_names(wishes: Wishes) -> tuple[str, ...]:
    """Returns the names of the wishes that a network sees, in order."""
    if isinstance(wishes, bool):
        return WISHES if wishes else ()
    return tuple(wishes)


def channel_names(structures: Sequence[str], wishes: Wishes = False, arcs: bool = False) -> tuple[str, ...]:
    """Returns the names of the channels, in order."""
    wished = [f"wish {name}" for name in wish_names(wishes)]
    of_arcs = ARC_CHANNELS if arcs else ()
    return "targets by prescription", "depth to the isocentre plane", *structures, *wished, *of_arcs


def bev_channels(
    case: Case, structures: Sequence[str], wishes: Wishes = False, arcs: bool = False
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns thickness of targets and structures and depth of the isocentre along each beamlet's ray, wishes, arcs.

    Where targets overlap, the highest prescription counts. Lengths are in units of 100 mm, so that the network's inputs
    are around 1. A structure that the case lacks has thickness zero.

    Args:
        case: the case.
        structures: organs (and targets), one channel each.
        wishes: wishes that get a channel each, the logarithm of the factor (0: no wish).
        arcs: whether to add the channels of `arc_channels`.

    Returns:
        The channels that `channel_names` names, on the grid of the fluence.

    Raises:
        ValueError: no structures, or a structure or wish that is named twice.
    """
    if not structures or len(set(structures)) != len(structures):
        raise ValueError(f"condition structures {list(structures)}: expected one or more names, each once")
    names = wish_names(wishes)
    if len(set(names)) != len(names):
        raise ValueError(f"condition wishes {list(names)}: expected each name once")
    nothing = torch.zeros(case.grid.shape, device=case.hu.device)
    masks = [case.structures[name].float() if name in case.structures else nothing for name in structures]
    thickness = _trace(case, torch.stack([_relative_prescription(case), *masks]))
    density = relative_electron_density(case.hu.float()) * case.structures[BODY]
    depth = _trace(case, density[None], stop_mm=case.machine.sad_mm)
    anatomy = torch.cat((thickness[:1], depth, thickness[1:])) / LENGTH_MM
    return torch.cat((anatomy, wish_and_arc_channels(case, wishes, arcs)))


def wish_and_arc_channels(
    case: Case, wishes: Wishes = False, arcs: bool = False
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns the last channels of `bev_channels`, which need no rays: wishes, constant over the beamlets, and arcs."""
    factors = torch.tensor(log_wishes(case.wishes, wish_names(wishes)), device=case.hu.device)
    wished = factors[:, None, None, None].expand(-1, *case.fluence_shape)
    return torch.cat((wished, arc_channels(case))) if arcs else wished


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
