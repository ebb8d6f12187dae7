"""Machine limits: count what a plan violates, and the projection after which it violates nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_motion import half_sector_seconds
from lightning_vmat.plan.machine import Machine

TOLERANCE_MM, TOLERANCE_MU = 1e-3, 1e-4  # float32 rounding of positions near 200 mm and of MU


def step_seconds(mu: Float[Tensor, " control_point"], setup: BeamSetup) -> Float[Tensor, " step"]:
    """Shortest time from the middle of each sector to that of the next: the gantry's or the dose rate's."""
    half_s = half_sector_seconds(mu, setup)
    return half_s[:-1] + half_s[1:]


def machine_violations(plan: Plan, setup: BeamSetup) -> dict[str, int]:
    """How often a plan breaks each limit of the machine; all zeros for a deliverable plan."""
    left, right, mu, machine = plan.left_mm, plan.right_mm, plan.mu, setup.machine
    reach_mm = machine.leaf_speed_mm_per_s * step_seconds(mu, setup) + TOLERANCE_MM
    banks = torch.stack((left, right))
    too_fast = (banks.diff(dim=1).abs() > reach_mm[:, None]) & setup.same_arc.to(mu.device)[:, None]
    span = banks.amax(dim=-1) - banks.amin(dim=-1)
    mu_per_deg = mu / setup.control_points.sector_deg.to(mu)
    counts = {
        "leaf_speed": too_fast,
        "leaf_gap": right - left < machine.min_leaf_gap_mm - TOLERANCE_MM,
        "leaf_span": span > machine.max_leaf_span_mm + TOLERANCE_MM,
        "leaf_position": banks.abs() > machine.max_leaf_position_mm + TOLERANCE_MM,
        "interdigitation": torch.zeros(1, dtype=torch.bool)
        if machine.interdigitation
        else torch.cat((left[:, 1:] > right[:, :-1] + TOLERANCE_MM, left[:, :-1] > right[:, 1:] + TOLERANCE_MM)),
        "mu_per_deg": (mu_per_deg < machine.min_mu_per_deg - TOLERANCE_MU)
        | (mu_per_deg > machine.max_mu_per_deg + TOLERANCE_MU),
        "not_finite": ~torch.cat((banks.flatten(), mu)).isfinite(),
    }
    return {name: int(broken.sum()) for name, broken in counts.items()}


def project_to_limits(plan: Plan, setup: BeamSetup) -> Plan:
    """The nearby plan that violates nothing.

    Monitor units are clipped. Leaf pairs are opened to the least gap, each bank is clipped into the middle window of
    the allowed span, and speed is limited, in this order. The speed limit at the fastest gantry is a Lipschitz bound
    `d` per step; the average of the largest minorant and the smallest majorant that keep it is the nearest such path
    in the maximum norm. Windows and envelopes are monotone and commute with shifts, so what holds between leaves of a
    control point (gap, span) still holds afterwards.

    Raises:
        ValueError: a machine without interdigitation.
    """
    machine, control_points = setup.machine, setup.control_points
    if not machine.interdigitation:
        raise ValueError(f"machine {machine.name}: plans for an MLC without interdigitation are not supported yet")
    sector = control_points.sector_deg.to(plan.mu)
    mu = plan.mu.clamp(machine.min_mu_per_deg * sector, machine.max_mu_per_deg * sector)

    gap = machine.min_leaf_gap_mm
    short = ((gap - (plan.right_mm - plan.left_mm)) / 2).clamp(min=0.0)
    left = _within_span(
        plan.left_mm - short, -machine.max_leaf_position_mm, machine.max_leaf_position_mm - gap, machine
    )
    right = _within_span(
        plan.right_mm + short, gap - machine.max_leaf_position_mm, machine.max_leaf_position_mm, machine
    )

    reach_mm = machine.leaf_speed_mm_per_s * (sector[1:] + sector[:-1]) / 2 / machine.gantry_speed_deg_per_s
    for arc in control_points.arc_index.unique().tolist():
        steps = (control_points.arc_index == arc).nonzero()[:, 0].to(left.device)
        first, last = int(steps[0]), int(steps[-1]) + 1
        for bank in (left, right):
            bank[first:last] = _limit_speed(bank[first:last], reach_mm[first : last - 1])
    return Plan(left, right, mu)


def _within_span(
    bank: Float[Tensor, "control_point leaf_pair"], lowest_mm: float, highest_mm: float, machine: Machine
) -> Float[Tensor, "control_point leaf_pair"]:
    """A bank's tips between two positions and within the allowed span, at each control point about its middle."""
    bank = bank.clamp(lowest_mm, highest_mm)
    middle = (bank.amin(dim=-1, keepdim=True) + bank.amax(dim=-1, keepdim=True)) / 2
    half_span = machine.max_leaf_span_mm / 2
    return bank.clamp(middle - half_span, middle + half_span)


def _limit_speed(
    path: Float[Tensor, "control_point leaf_pair"],
    reach: Float[Tensor, " step"],
) -> Float[Tensor, "control_point leaf_pair"]:
    """Nearest path (maximum norm) that moves at most `reach` a step."""
    place = torch.cat((reach.new_zeros(1), reach.cumsum(0)))[:, None]
    return (_minorant(path, place) - _minorant(-path, place)) / 2


def _minorant(
    path: Float[Tensor, "control_point leaf_pair"],
    place: Float[Tensor, "control_point 1"],
) -> Float[Tensor, "control_point leaf_pair"]:
    """`min_j path_j + |place_i - place_j|`: the largest path below `path` with slope at most one in `place`."""
    from_before = place + (path - place).cummin(dim=0).values
    from_after = (path + place).flip(0).cummin(dim=0).values.flip(0) - place
    return torch.minimum(from_before, from_after)
