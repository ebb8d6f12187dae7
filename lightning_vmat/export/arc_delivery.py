"""From sectors to what a linac is told: positions between which it interpolates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.plan.machine import Machine


@dataclass(frozen=True)
class ArcDelivery:
    """Machine positions along one arc; between two points everything moves in proportion to the monitor units.

    A sector of the plan becomes three points: its beginning, its middle and its end (the next one's beginning).

    - *Monitor units*: each half of a sector gets half of the sector's, so that every sector has its own exactly.
    - *Leaves*: the plan's aperture stands in the middle. At the boundary of two sectors each leaf has gone the share
      of its way that the time at full speed in the one half sector has of both: speeds are equal on both sides of the
      boundary, and no higher than `machine_violations` counted from middle to middle. Gap and span hold because
      all leaves share that fraction. An arc begins and ends with half a sector of still leaves.
    - *Difference to the sector model*: a leaf's mean position in its sector is that of the aperture plus about an
      eighth of the second difference along the arc.

    Args:
        gantry_deg: gantry angle, in [0, 360).
        cumulative_mu: monitor units of one fraction given before the point.
        left_mm: tips of all leaf pairs of the machine, bank X1.
        right_mm: bank X2.
    """

    gantry_deg: Float[Tensor, " point"]
    cumulative_mu: Float[Tensor, " point"]
    left_mm: Float[Tensor, "point machine_leaf_pair"]
    right_mm: Float[Tensor, "point machine_leaf_pair"]


def arc_deliveries(case: Case, plan: Plan) -> list[ArcDelivery]:
    """What the linac is told for each arc of a plan.

    Raises:
        ValueError: a plan that breaks limits of the machine, or rows that are not made of its leaf pairs.
    """
    points, machine = case.control_points, case.machine
    whole = all_leaf_pairs(case, plan)
    broken = {name: count for name, count in machine_violations(whole, points, machine).items() if count}
    if broken:
        limits = ", ".join(f"{name} {count} times" for name, count in broken.items())
        raise ValueError(f"case {case.case_id}: plan breaks limits of {machine.name} ({limits}), expected none")
    deliveries = []
    for number, arc in enumerate(case.arcs):
        own = points.arc_index == number
        arc_plan = Plan(whole.left_mm[own].double(), whole.right_mm[own].double(), whole.mu[own].double())
        deliveries.append(_delivery(arc_plan, arc, machine))
    return deliveries


def all_leaf_pairs(case: Case, plan: Plan) -> Plan:
    """The plan with every leaf pair of the machine: ganged pairs move together, those beside the field stay closed.

    Closed pairs stand under the jaws in the middle of the arcs' openings, at the smallest gap.

    Raises:
        ValueError: row boundaries that are not boundaries of the machine's leaf pairs.
    """
    edges, rows = torch.tensor(case.machine.leaf_edges_mm), torch.tensor(case.beamlets.leaf_edges_mm)
    if (rows[:, None] - edges).abs().amin(dim=1).max() > 1e-3:
        raise ValueError(f"case {case.case_id}: rows at {rows.tolist()} mm, expected leaf boundaries of the machine")
    row = torch.bucketize((edges[:-1] + edges[1:]) / 2, rows) - 1
    inside = (row >= 0) & (row < len(rows) - 1)
    park_mm = (plan.left_mm.min() + plan.right_mm.max()) / 2
    half_gap = case.machine.min_leaf_gap_mm / 2
    left = (park_mm - half_gap).repeat(len(plan.mu), len(row))
    right = (park_mm + half_gap).repeat(len(plan.mu), len(row))
    left[:, inside], right[:, inside] = plan.left_mm[:, row[inside]], plan.right_mm[:, row[inside]]
    return Plan(left, right, plan.mu)


def _delivery(plan: Plan, arc: Arc, machine: Machine) -> ArcDelivery:
    half_deg = arc.span_deg / arc.control_points / 2
    half_s = torch.maximum(
        torch.full_like(plan.mu, abs(half_deg) / machine.gantry_speed_deg_per_s),
        plan.mu / 2 / machine.dose_rate_mu_per_s,
    )
    share = (half_s[:-1] / (half_s[:-1] + half_s[1:]))[:, None]
    return ArcDelivery(
        gantry_deg=(arc.gantry_start_deg + half_deg * torch.arange(2 * arc.control_points + 1).double()) % 360.0,
        cumulative_mu=torch.cat((plan.mu.new_zeros(1), (plan.mu / 2).repeat_interleave(2).cumsum(0))),
        left_mm=_path(plan.left_mm, share),
        right_mm=_path(plan.right_mm, share),
    )


def _path(
    middles_mm: Float[Tensor, "control_point machine_leaf_pair"], share: Float[Tensor, "step 1"]
) -> Float[Tensor, "point machine_leaf_pair"]:
    """Tips at the beginning, in the middle and at the end of each sector."""
    boundaries = torch.cat((middles_mm[:1], middles_mm[:-1] + share * middles_mm.diff(dim=0), middles_mm[-1:]))
    path = middles_mm.new_empty(2 * len(middles_mm) + 1, middles_mm.shape[1])
    path[0::2], path[1::2] = boundaries, middles_mm
    return path
