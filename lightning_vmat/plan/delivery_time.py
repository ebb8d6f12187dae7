"""How long a linac takes to deliver a plan."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine


def least_seconds(
    gantry_deg: Float[Tensor, " interval"],
    mu: Float[Tensor, " interval"],
    leaf_mm: Float[Tensor, " interval"],
    machine: Machine,
) -> Float[Tensor, "limit interval"]:
    """Least time of each interval by the gantry, by the dose rate and by the leaves; it takes the longest of the three.

    Args:
        gantry_deg: angle that the gantry turns by, positive.
        mu: monitor units given.
        leaf_mm: distance of the leaf that moves farthest.
        machine: gives the highest speeds and the highest dose rate.
    """
    return torch.stack(
        (
            gantry_deg / machine.gantry_speed_deg_per_s,
            mu / machine.dose_rate_mu_per_s,
            leaf_mm / machine.leaf_speed_mm_per_s,
        )
    )


def delivery_seconds(
    plan: Plan, control_points: ControlPoints, beamlets: BeamletGrid, machine: Machine
) -> Float[Tensor, " control_point"]:
    """Time that each sector of a plan takes, without the time between arcs.

    Each half of a sector gets half of its monitor units. A leaf passes the boundary of two sectors with equal speed on
    both sides, and stands still in the first and the last half sector of an arc, as the RTPLAN says.

    Args:
        plan: leaves and monitor units of one fraction.
        control_points: sectors and arcs.
        beamlets: gives the jaws; leaves behind them do not count.
        machine: gives the highest speeds and the highest dose rate.
    """
    half_deg, half_mu = control_points.sector_deg.to(plan.mu) / 2, plan.mu / 2
    alone_s = least_seconds(half_deg, half_mu, torch.zeros_like(half_mu), machine).amax(dim=0)
    x1, x2, y1, y2 = beamlets.field_mm
    rows = beamlets.leaf_centres_mm.to(plan.mu)
    tips = torch.cat((plan.left_mm[:, (rows > y1) & (rows < y2)], plan.right_mm[:, (rows > y1) & (rows < y2)]), dim=1)
    boundary = torch.lerp(tips[:-1], tips[1:], (alone_s[:-1] / (alone_s[:-1] + alone_s[1:]))[:, None])
    tips, boundary = tips.clamp(x1, x2), boundary.clamp(x1, x2)
    same_arc = control_points.arc_index.diff().to(plan.mu.device) == 0
    none = plan.mu.new_zeros(1)
    first_mm = torch.cat((none, (tips[1:] - boundary).abs().amax(dim=1) * same_arc))
    second_mm = torch.cat(((boundary - tips[:-1]).abs().amax(dim=1) * same_arc, none))
    return sum(
        (least_seconds(half_deg, half_mu, moved_mm, machine).amax(dim=0) for moved_mm in (first_mm, second_mm)),
        start=torch.zeros_like(half_mu),
    )
