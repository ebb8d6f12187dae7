"""Delivery time of a plan."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_motion import sector_ends
from lightning_vmat.plan.machine import Machine


def least_seconds(
    gantry_deg: Float[Tensor, " interval"],
    mu: Float[Tensor, " interval"],
    leaf_mm: Float[Tensor, " interval"],
    machine: Machine,
) -> Float[Tensor, "limit interval"]:
    """Returns the shortest time of each interval by gantry, dose rate and leaves; the longest of the three holds.

    Args:
        gantry_deg: gantry rotation, positive.
        mu: monitor units delivered.
        leaf_mm: largest distance that a leaf moves.
        machine: gives the maximum speeds and the maximum dose rate.
    """
    return torch.stack(
        (
            gantry_deg / machine.gantry_speed_deg_per_s,
            mu / machine.dose_rate_mu_per_s,
            leaf_mm / machine.leaf_speed_mm_per_s,
        )
    )


def delivery_seconds(plan: Plan, setup: BeamSetup) -> Float[Tensor, " control_point"]:
    """Returns the delivery time of each sector of a plan, without the time between arcs.

    Each half of a sector has half of its monitor units; leaves move as in `sector_ends`.

    Args:
        plan: leaves and monitor units of one fraction.
        setup: gives sectors, arcs, speeds and jaws; leaves behind the jaws are ignored.
    """
    half_deg, half_mu = setup.control_points.sector_deg.to(plan.mu) / 2, plan.mu / 2
    x1, x2 = setup.x_jaws_mm
    rows = setup.beamlets.inside_jaws.any(dim=1).to(plan.mu.device)
    middle = torch.stack((plan.left_mm, plan.right_mm))[..., rows]
    begin, end = (tips.clamp(x1, x2) for tips in sector_ends(middle, plan.mu, setup))
    middle = middle.clamp(x1, x2)
    halves_mm = ((moved.abs().amax(dim=(0, 2))) for moved in (middle - begin, end - middle))
    first_s, second_s = (least_seconds(half_deg, half_mu, mm, setup.machine).amax(dim=0) for mm in halves_mm)
    return first_s + second_s
