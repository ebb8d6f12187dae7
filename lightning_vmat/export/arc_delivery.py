"""Converts the sectors of a plan to control points, between which a linac interpolates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.leaf_motion import sector_ends
from lightning_vmat.plan.limits import machine_violations


@dataclass(frozen=True)
class ArcDelivery:
    """Machine positions along one arc. Between two points everything moves in proportion to the monitor units.

    A sector of the plan becomes three points: its beginning, its middle and its end (the next one's beginning).

    - *Monitor units*: each half of a sector gets half of the sector's, so that each sector gets exactly its own.
    - *Leaves*: the plan's tips are reached in the middle, those of `sector_ends` at the boundaries. The fluence of a
      plan (`delivered_fluence`) is the average over exactly this motion, and `machine_violations` checks its leaf
      speeds. Gap and span are kept between the middles because all leaves cover the same fraction of their paths.

    Args:
        gantry_deg: gantry angle, in [0, 360).
        cumulative_mu: monitor units of one fraction given before the point.
        left_mm: tips of all leaf pairs of the machine, bank X1.
        right_mm: tips of bank X2.
    """

    gantry_deg: Float[Tensor, " point"]
    cumulative_mu: Float[Tensor, " point"]
    left_mm: Float[Tensor, "point machine_leaf_pair"]
    right_mm: Float[Tensor, "point machine_leaf_pair"]


def arc_deliveries(case: Case, plan: Plan) -> list[ArcDelivery]:
    """Machine positions of each arc of a plan.

    Raises:
        ValueError: a plan that breaks limits of the machine, or rows that do not consist of its leaf pairs.
    """
    machine = case.machine
    whole = all_leaf_pairs(case, plan)
    setup = replace(case.beam_setup, beamlets=replace(case.beamlets, leaf_edges_mm=machine.leaf_edges_mm))
    broken = {name: count for name, count in machine_violations(whole, setup).items() if count}
    if broken:
        limits = ", ".join(f"{name} {count} times" for name, count in broken.items())
        raise ValueError(f"case {case.case_id}: plan breaks limits of {machine.name} ({limits}), expected none")
    mu, middle = whole.mu.double(), torch.stack((whole.left_mm, whole.right_mm)).double()
    begin, end = sector_ends(middle, mu, setup)
    deliveries = []
    for number, arc in enumerate(case.arcs):
        own = case.control_points.arc_index == number
        deliveries.append(_delivery(begin[:, own], middle[:, own], end[:, own], mu[own], arc))
    return deliveries


def all_leaf_pairs(case: Case, plan: Plan) -> Plan:
    """The plan with all leaf pairs of the machine: pairs of a row move together, pairs outside the field stay closed.

    Closed pairs are under the jaws, in the middle of the arcs' openings, at the smallest gap. If leaves may not
    pass their opposed neighbours, they follow the outermost row of their side as far as necessary.

    Raises:
        ValueError: row boundaries that are not leaf boundaries of the machine.
    """
    edges, rows = torch.tensor(case.machine.leaf_edges_mm), torch.tensor(case.beamlets.leaf_edges_mm)
    if (rows[:, None] - edges).abs().amin(dim=1).max() > 1e-3:
        raise ValueError(f"case {case.case_id}: rows at {rows.tolist()} mm, expected leaf boundaries of the machine")
    row = torch.bucketize((edges[:-1] + edges[1:]) / 2, rows) - 1
    inside = (row >= 0) & (row < len(rows) - 1)
    park_mm = (plan.left_mm.min() + plan.right_mm.max()) / 2
    half_gap = case.machine.min_leaf_gap_mm / 2
    middle = park_mm.repeat(len(plan.mu), len(row))
    if not case.machine.interdigitation:
        beside = row.clamp(0, len(rows) - 2)
        lowest, highest = plan.left_mm[:, beside] + half_gap, plan.right_mm[:, beside] - half_gap
        middle = torch.minimum(torch.maximum(middle, torch.minimum(lowest, highest)), torch.maximum(lowest, highest))
    left, right = middle - half_gap, middle + half_gap
    left[:, inside], right[:, inside] = plan.left_mm[:, row[inside]], plan.right_mm[:, row[inside]]
    return Plan(left, right, plan.mu)


def _delivery(
    begin_mm: Float[Tensor, "2 control_point machine_leaf_pair"],
    middle_mm: Float[Tensor, "2 control_point machine_leaf_pair"],
    end_mm: Float[Tensor, "2 control_point machine_leaf_pair"],
    mu: Float[Tensor, " control_point"],
    arc: Arc,
) -> ArcDelivery:
    """Machine positions of one arc. A sector ends where the next one begins."""
    half_deg = arc.span_deg / arc.control_points / 2
    left, right = torch.cat((torch.stack((begin_mm, middle_mm), dim=2).flatten(1, 2), end_mm[:, -1:]), dim=1)
    return ArcDelivery(
        gantry_deg=(arc.gantry_start_deg + half_deg * torch.arange(2 * arc.control_points + 1).double()) % 360.0,
        cumulative_mu=torch.cat((mu.new_zeros(1), (mu / 2).repeat_interleave(2).cumsum(0))),
        left_mm=left,
        right_mm=right,
    )
