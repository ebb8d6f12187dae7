"""How long the linac takes to deliver a plan."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_motion import half_sector_seconds


def delivery_seconds(plan: Plan, setup: BeamSetup) -> Float[Tensor, " step"]:
    """Shortest time of each part of each arc: the gantry's, the dose rate's or the slowest leaf's.

    An arc of n control points has n + 1 parts, in the order of delivery: the first half sector, the n - 1 steps from
    the middle of a sector to that of the next, and the last half sector. Leaves move in the steps only (see
    `sector_ends`). All leaves count, also those behind jaws, since the linac waits for every one.

    Args:
        plan: the plan.
        setup: control points and the machine's speeds.

    Returns:
        Seconds of all parts, arc after arc; the time between arcs is left out.
    """
    half_s = half_sector_seconds(plan.mu, setup)
    travel_mm = torch.cat((plan.left_mm, plan.right_mm), dim=-1).diff(dim=0).abs().amax(dim=-1)
    step_s = torch.maximum(half_s[:-1] + half_s[1:], travel_mm / setup.machine.leaf_speed_mm_per_s)
    parts, first = [], 0
    for count in setup.control_points.arc_index.unique_consecutive(return_counts=True)[1].tolist():
        last = first + count - 1
        parts += [half_s[first : first + 1], step_s[first:last], half_s[last : last + 1]]
        first = last + 1
    return torch.cat(parts)


def total_delivery_seconds(plan: Plan, setup: BeamSetup) -> float:
    """Shortest time with beam, all arcs together; see `delivery_seconds`."""
    return float(delivery_seconds(plan, setup).sum())
