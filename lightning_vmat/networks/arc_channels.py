"""Condition channels that say where arcs begin and end, and which control points are neighbours in an arc.

A single full turn is a ring: its last control point is joined to its first. All other arcs have two ends, also full
turns in a plan of several arcs, whose leaves and collimator start anew with each arc.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.case import Case

ARC_CHANNELS = ("joined to the next control point", "arc", "travel from the arc's start", "travel to the arc's end")
"""The names, in order. They are the last channels of a condition."""

TRAVEL_DEG = 100.0  # unit of gantry travel
RING_DEG = 180.0  # travel to the ends of an arc that has none: that of the point opposite


def arc_channels(case: Case) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns `ARC_CHANNELS` of a case, constant over the beamlets of a control point.

    The first is 1 where the next control point (after the last one the first) continues the same arc, else 0. The
    second is the number of the arc, from 0. The others are in units of 100 degrees, from the middle of the control
    point's sector; 1.8 on a ring.
    """
    points = case.control_points
    arc = points.arc_index
    if len(case.arcs) == 1 and case.arcs[0].is_full_turn:
        joined = torch.ones(len(points), device=arc.device)
        start_deg = end_deg = torch.full((len(points),), RING_DEG, device=arc.device)
    else:
        joined = torch.cat((arc[1:] == arc[:-1], torch.zeros(1, dtype=torch.bool, device=arc.device))).float()
        spans_deg = [points.sector_deg[arc == number] for number in range(len(case.arcs))]
        start_deg = torch.cat([sectors.cumsum(0) - sectors / 2 for sectors in spans_deg])
        end_deg = torch.cat([sectors.sum() - sectors.cumsum(0) + sectors / 2 for sectors in spans_deg])
    channels = torch.stack((joined, arc.float(), start_deg / TRAVEL_DEG, end_deg / TRAVEL_DEG))
    return channels[:, :, None, None].expand(-1, *case.fluence_shape)


def joined_points(
    condition: Float[Tensor, "batch channel control_point leaf_pair beamlet"],
) -> Float[Tensor, "batch control_point"]:
    """Returns the first of `ARC_CHANNELS` from a condition that ends with them."""
    return condition[:, -len(ARC_CHANNELS), :, 0, 0]
