"""Machine limits: count what a plan violates, and the projection after which it violates nothing."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.leaf_motion import half_sector_seconds
from lightning_vmat.plan.machine import Machine

TOLERANCE_MM, TOLERANCE_MU = 1e-3, 1e-4  # float32 rounding of positions near 200 mm and of MU
Tips = Float[Tensor, "*control_point leaf_pair"]


def step_seconds(mu: Float[Tensor, " control_point"], setup: BeamSetup) -> Float[Tensor, " step"]:
    """Shortest time from the middle of each sector to that of the next: the gantry's or the dose rate's."""
    half_s = half_sector_seconds(mu, setup)
    return half_s[:-1] + half_s[1:]


def machine_violations(plan: Plan, setup: BeamSetup, *, gantry_may_slow: bool = False) -> dict[str, int]:
    """How often a plan breaks each limit of the machine; all zeros for a deliverable plan.

    Jaws excuse some of it. A pair counts as behind a jaw when its row is, or when both of its tips are behind the same
    X jaw:

    - *Leaf speed*: leaves behind a jaw before and after a step may be late, as the beam does not see them.
    - *Leaf gap*: the least gap keeps tips from colliding that move at once. A pair that moves neither before nor after
      its sector needs the smaller gap of leaves at rest, and a pair behind a jaw none: planning systems park such pairs
      closed. Tips that have passed each other (right < left) are a fault everywhere.
    - *Span, position and interdigitation* hold everywhere: a carriage and opposed neighbours collide behind jaws too.

    Args:
        plan: the plan.
        setup: control points, beamlets with jaws, and the machine.
        gantry_may_slow: whether a leaf that needs more time than gantry and dose rate makes the linac slow down, as it
            does for any plan. `leaf_speed` is then no limit and left out; see `delivery_seconds` for what it costs.
    """
    left, right, mu, machine = plan.left_mm, plan.right_mm, plan.mu, setup.machine
    banks = torch.stack((left, right))
    travel_mm = banks.diff(dim=1).abs() * setup.same_arc.to(mu.device)[:, None]
    hidden = _behind_jaws(plan, setup.beamlets)
    span = banks.amax(dim=-1) - banks.amin(dim=-1)
    mu_per_deg = mu / setup.control_points.sector_deg.to(mu)
    counts = {
        "leaf_gap": _gap_faults(plan, travel_mm, hidden.any(dim=0), machine),
        "leaf_span": span > machine.max_leaf_span_mm + TOLERANCE_MM,
        "leaf_position": banks.abs() > machine.max_leaf_position_mm + TOLERANCE_MM,
        "interdigitation": torch.zeros(1, dtype=torch.bool)
        if machine.interdigitation
        else torch.cat((left[:, 1:] > right[:, :-1] + TOLERANCE_MM, left[:, :-1] > right[:, 1:] + TOLERANCE_MM)),
        "mu_per_deg": (mu_per_deg < machine.min_mu_per_deg - TOLERANCE_MU)
        | (mu_per_deg > machine.max_mu_per_deg + TOLERANCE_MU),
        "not_finite": ~torch.cat((banks.flatten(), mu)).isfinite(),
    }
    if not gantry_may_slow:
        reach_mm = machine.leaf_speed_mm_per_s * step_seconds(mu, setup) + TOLERANCE_MM
        seen = ~(hidden[:, 1:] & hidden[:, :-1]).any(dim=0)
        counts = {"leaf_speed": (travel_mm > reach_mm[:, None]) & seen, **counts}
    return {name: int(broken.sum()) for name, broken in counts.items()}


def _behind_jaws(plan: Plan, beamlets: BeamletGrid) -> Bool[Tensor, "jaw control_point leaf_pair"]:
    """Which pairs are behind the Y jaws, behind X1, and behind X2."""
    x1, x2, _, _ = beamlets.field_mm
    row = ~beamlets.inside_jaws.any(dim=1).to(plan.left_mm.device)
    beyond = plan.right_mm <= x1 + TOLERANCE_MM, plan.left_mm >= x2 - TOLERANCE_MM
    return torch.stack((row.expand_as(plan.left_mm), *beyond))


def _gap_faults(
    plan: Plan,
    travel_mm: Float[Tensor, "bank step leaf_pair"],
    hidden: Bool[Tensor, "control_point leaf_pair"],
    machine: Machine,
) -> Bool[Tensor, "control_point leaf_pair"]:
    """Pairs that are too close to move, or to stand still; see `machine_violations`."""
    steps = (travel_mm > TOLERANCE_MM).any(dim=0)
    still = torch.zeros_like(hidden[:1])
    moves = torch.cat((still, steps)) | torch.cat((steps, still))
    least_mm = torch.where(moves, machine.min_leaf_gap_mm, machine.min_still_leaf_gap_mm)
    gap_mm = plan.right_mm - plan.left_mm
    return ((gap_mm < least_mm - TOLERANCE_MM) & ~hidden) | (gap_mm < -TOLERANCE_MM)


def project_to_limits(plan: Plan, setup: BeamSetup) -> Plan:
    """The nearby plan that violates nothing.

    Monitor units are clipped. Leaf pairs are opened to the least gap, each bank is clipped into the middle window of
    the allowed span, and speed is limited, in this order. The speed limit at the fastest gantry is a Lipschitz bound
    `d` per step; the average of the largest minorant and the smallest majorant that keep it is the nearest such path
    in the maximum norm. Windows and envelopes are monotone and commute with shifts, so what holds between leaves of a
    control point (gap, span) still holds afterwards.

    A pair that is closed at every control point of an arc is not opened: it stands still there, see `_parked`.

    Raises:
        ValueError: a machine without interdigitation.
    """
    machine, control_points = setup.machine, setup.control_points
    if not machine.interdigitation:
        raise ValueError(f"machine {machine.name}: plans for an MLC without interdigitation are not supported yet")
    sector = control_points.sector_deg.to(plan.mu)
    mu = plan.mu.clamp(machine.min_mu_per_deg * sector, machine.max_mu_per_deg * sector)

    gap = machine.min_leaf_gap_mm
    left, right = _opened(plan.left_mm, plan.right_mm, gap)
    left = _within_span(left, -machine.max_leaf_position_mm, machine.max_leaf_position_mm - gap, machine)
    right = _within_span(right, gap - machine.max_leaf_position_mm, machine.max_leaf_position_mm, machine)

    reach_mm = machine.leaf_speed_mm_per_s * (sector[1:] + sector[:-1]) / 2 / machine.gantry_speed_deg_per_s
    for arc in control_points.arc_index.unique().tolist():
        steps = (control_points.arc_index == arc).nonzero()[:, 0].to(left.device)
        own = slice(int(steps[0]), int(steps[-1]) + 1)
        for bank in (left, right):
            bank[own] = _limit_speed(bank[own], reach_mm[own.start : own.stop - 1])
        left[own], right[own] = _parked((plan.left_mm[own], plan.right_mm[own]), (left[own], right[own]), machine)
    return Plan(left, right, mu)


def _opened(left: Tips, right: Tips, gap_mm: float) -> tuple[Tips, Tips]:
    """Pairs at least so far open, about their middles."""
    short = ((gap_mm - (right - left)) / 2).clamp(min=0.0)
    return left - short, right + short


def _parked(given: tuple[Tips, Tips], projected: tuple[Tips, Tips], machine: Machine) -> tuple[Tips, Tips]:
    """One arc with the pairs at rest that were given closed, below the least gap, at all of its control points.

    They stand at the mean of their given places, no further open than leaves at rest must be: nothing adds to the dose
    that they let through. Where the span of a bank would not allow it, pairs move and are opened as projected.
    """
    closed = (given[1] - given[0] < machine.min_leaf_gap_mm - TOLERANCE_MM).all(dim=0)
    limit_mm = machine.max_leaf_position_mm - machine.min_still_leaf_gap_mm / 2
    left, right = (bank.mean(dim=0).clamp(-limit_mm, limit_mm) for bank in given)
    tips = _opened(left, right, machine.min_still_leaf_gap_mm)
    parked = [torch.where(closed, tip, bank) for tip, bank in zip(tips, projected, strict=True)]
    span_mm = max(float((bank.amax(dim=-1) - bank.amin(dim=-1)).max()) for bank in parked)
    return (parked[0], parked[1]) if span_mm <= machine.max_leaf_span_mm + TOLERANCE_MM / 2 else projected


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
