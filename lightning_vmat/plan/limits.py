"""Machine limits: counts of a plan's violations, and the projection to a plan without any."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_constraints import (
    TOLERANCE_MM,
    gathered,
    interdigitating,
    limit_speed,
    opened,
    parked,
    within_span,
)
from lightning_vmat.plan.leaf_motion import gantry_half_sector_seconds, half_sector_seconds
from lightning_vmat.plan.machine import Machine

TOLERANCE_MU = 1e-4  # float32 rounding


def step_seconds(mu: Float[Tensor, " control_point"], setup: BeamSetup) -> Float[Tensor, " step"]:
    """Returns the time that leaves have from each sector's middle to the next: the gantry's or the dose rate's."""
    half_s = torch.maximum(
        half_sector_seconds(mu, setup), setup.gantry_slowdown * gantry_half_sector_seconds(setup).to(mu)
    )
    return half_s[:-1] + half_s[1:]


def machine_violations(plan: Plan, setup: BeamSetup, *, gantry_may_slow: bool = False) -> dict[str, int]:
    """Counts how often a plan breaks each limit of the machine; all counts are zero for a deliverable plan.

    Some limits are relaxed behind jaws. A pair is behind a jaw if its row is, or if both of its tips are behind the
    same X jaw of a machine that has X jaws:

    - *Leaf speed*: leaves behind a jaw before and after a step may be late, because they do not shape the beam.
    - *Leaf gap*: the minimum gap keeps moving tips from colliding. A pair that moves neither before nor after its
      sector needs the smaller gap of leaves at rest, and a pair behind a jaw needs none: planning systems park such
      pairs closed. Tips that have passed each other (right < left) are a violation everywhere.
    - *Span, position and interdigitation* hold everywhere: carriages and opposed neighbours collide behind jaws too.

    >>> import torch
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.plan.aperture import Plan
    >>> from lightning_vmat.plan.limits import machine_violations, project_to_limits
    >>> setup = vmat.phantom(0, size="tiny").beam_setup
    >>> tips_mm = torch.full((len(setup.control_points), setup.beamlets.shape[0]), 20.0)
    >>> plan = Plan(-tips_mm, tips_mm, mu=torch.full((len(setup.control_points),), 1e4))
    >>> machine_violations(plan, setup)["mu_per_deg"] == len(setup.control_points)
    True
    >>> sum(machine_violations(project_to_limits(plan, setup), setup).values())
    0

    Args:
        plan: the plan.
        setup: control points, beamlets with jaws, and the machine.
        gantry_may_slow: whether the gantry slows down for leaves that need more time than gantry and dose rate, as
            linacs do. `leaf_speed` is then no limit and left out; `delivery_seconds` gives the time it costs.

    Returns:
        Number of violations by name of the limit.
    """
    left, right, mu, machine = plan.left_mm, plan.right_mm, plan.mu, setup.machine
    banks = torch.stack((left, right))
    travel_mm = banks.diff(dim=1).abs() * setup.same_arc.to(mu.device)[:, None]
    hidden = _behind_jaws(plan, setup)
    span = banks.amax(dim=-1) - banks.amin(dim=-1)
    mu_per_deg = mu / setup.control_points.sector_deg.to(mu)
    counts = {
        "leaf_gap": _gap_faults(plan, travel_mm, hidden.any(dim=0), machine),
        "leaf_span": span > machine.max_leaf_span_mm + TOLERANCE_MM,
        "leaf_position": banks.abs() > machine.max_leaf_position_mm + TOLERANCE_MM,
        "interdigitation": torch.zeros(1) if machine.interdigitation else interdigitating(left, right),
        "mu_per_deg": (mu_per_deg < machine.min_mu_per_deg - TOLERANCE_MU)
        | (mu_per_deg > machine.max_mu_per_deg + TOLERANCE_MU),
        "not_finite": ~torch.cat((banks.flatten(), mu)).isfinite(),
    }
    if not gantry_may_slow:
        reach_mm = machine.leaf_speed_mm_per_s * step_seconds(mu, setup) + TOLERANCE_MM
        seen = ~(hidden[:, 1:] & hidden[:, :-1]).any(dim=0)
        counts = {"leaf_speed": (travel_mm > reach_mm[:, None]) & seen, **counts}
    return {name: int(broken.sum()) for name, broken in counts.items()}


def _behind_jaws(plan: Plan, setup: BeamSetup) -> Bool[Tensor, "jaw control_point leaf_pair"]:
    """Returns which pairs are behind the Y jaws, and, if the machine has X jaws, behind X1 and behind X2."""
    x1, x2 = setup.x_jaws_mm
    row = ~setup.beamlets.inside_jaws.any(dim=1).to(plan.left_mm.device)
    beyond = plan.right_mm <= x1 + TOLERANCE_MM, plan.left_mm >= x2 - TOLERANCE_MM
    return torch.stack((row.expand_as(plan.left_mm), *beyond))


def _gap_faults(
    plan: Plan,
    travel_mm: Float[Tensor, "bank step leaf_pair"],
    hidden: Bool[Tensor, "control_point leaf_pair"],
    machine: Machine,
) -> Bool[Tensor, "control_point leaf_pair"]:
    """Returns pairs closer than the gap for moving leaves or for leaves at rest; see `machine_violations`."""
    steps = (travel_mm > TOLERANCE_MM).any(dim=0)
    still = torch.zeros_like(hidden[:1])
    moves = torch.cat((still, steps)) | torch.cat((steps, still))
    least_mm = torch.where(moves, machine.min_leaf_gap_mm, machine.min_still_leaf_gap_mm)
    gap_mm = plan.right_mm - plan.left_mm
    return ((gap_mm < least_mm - TOLERANCE_MM) & ~hidden) | (gap_mm < -TOLERANCE_MM)


def project_to_limits(plan: Plan, setup: BeamSetup) -> Plan:
    """Returns a nearby plan without violations.

    Monitor units are clipped. Then, in this order, leaf pairs are opened to the minimum gap and, without
    interdigitation, to their neighbours (see `opened`); each bank is clipped to the window of the allowed span about
    its middle; and the speed is limited. The speed limit at the gantry's full speed, or at the slower one that is
    allowed, is a Lipschitz bound `d` per step; the mean of the largest minorant and the smallest majorant that satisfy
    it is the nearest such path in the maximum norm. Windows and envelopes are monotone and commute with shifts, so the
    constraints between leaves of a control point (gap, span, interdigitation) still hold afterwards.

    A pair that is closed and at rest over an arc is not opened but kept at rest, see `parked`.

    See `machine_violations` for an example.
    """
    machine, control_points = setup.machine, setup.control_points
    sector = control_points.sector_deg.to(plan.mu)
    mu = plan.mu.clamp(machine.min_mu_per_deg * sector, machine.max_mu_per_deg * sector)

    gap, farthest_mm = machine.min_leaf_gap_mm, machine.max_leaf_position_mm
    left, right = opened(*gathered(plan.left_mm, plan.right_mm, machine), gap, machine.interdigitation)
    # each bank leaves room for the opposed one, so that clipping to the position limit cannot close a gap
    left = within_span(left, -farthest_mm, farthest_mm - gap, machine.max_leaf_span_mm)
    right = within_span(right, gap - farthest_mm, farthest_mm, machine.max_leaf_span_mm)

    # whatever the dose rate: monitor units can only add time, so the path does not need them
    half_s = setup.gantry_slowdown * gantry_half_sector_seconds(setup).to(plan.mu)
    reach_mm = machine.leaf_speed_mm_per_s * (half_s[1:] + half_s[:-1])
    for arc in control_points.arc_index.unique().tolist():
        steps = (control_points.arc_index == arc).nonzero()[:, 0].to(left.device)
        own = slice(int(steps[0]), int(steps[-1]) + 1)
        for bank in (left, right):
            bank[own] = limit_speed(bank[own], reach_mm[own.start : own.stop - 1])
        left[own], right[own] = parked((plan.left_mm[own], plan.right_mm[own]), (left[own], right[own]), machine)
    return Plan(left, right, mu)
