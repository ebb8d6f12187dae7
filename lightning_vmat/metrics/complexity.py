"""Complexity of a plan's apertures: figures that indicate how hard the plan is to deliver accurately."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

_OPEN_MM = 0.1  # a pair open by this much more than the minimum gap counts as open

Leaves = Float[Tensor, "control_point leaf_pair"]


def plan_complexity(plan: Plan, setup: BeamSetup, fraction_dose_gy: float) -> dict[str, float]:
    """Returns the complexity metrics of one plan.

    Args:
        plan: leaves and monitor units.
        setup: gives arcs, beamlets and machine. If a row of beamlets groups several leaf pairs, each pair counts; the
            part of an opening behind the X jaws does not count.
        fraction_dose_gy: prescribed dose per fraction.

    Returns:
        `mcs_v` (1 for a static open field), `edge_metric_per_mm`, `leaf_travel_mm` (mean over leaves and arcs),
        `aperture_area_cm2` (MU-weighted mean), `mu` (per fraction), `mu_per_gy`.
    """
    beamlets, machine = setup.beamlets, setup.machine
    pairs = leaf_pairs_of_rows(beamlets, machine).to(plan.left_mm.device)
    x1, x2 = setup.x_jaws_mm
    left, right = (bank.clamp(x1, x2).repeat_interleave(pairs, dim=1) for bank in (plan.left_mm, plan.right_mm))
    edges = torch.tensor(beamlets.leaf_edges_mm, device=left.device)
    width = (edges.diff() / pairs).repeat_interleave(pairs)
    is_open = right - left > machine.min_leaf_gap_mm + _OPEN_MM
    mu = float(plan.mu.sum())
    area = aperture_area_mm2(left, right, width, is_open)
    return {
        "mcs_v": modulation_complexity_score(left, right, is_open, plan.mu, setup.control_points),
        "edge_metric_per_mm": edge_metric(left, right, width, is_open, plan.mu),
        "leaf_travel_mm": leaf_travel_mm(left, right, is_open, setup.control_points),
        "aperture_area_cm2": float((area * plan.mu).sum() / plan.mu.sum()) / 100,
        "mu": mu,
        "mu_per_gy": mu / fraction_dose_gy,
    }


def leaf_pairs_of_rows(beamlets: BeamletGrid, machine: Machine) -> Tensor:
    """Returns the number of the machine's leaf pairs in each row of a beamlet grid."""
    machine_edges = torch.tensor(machine.leaf_edges_mm)
    places = torch.searchsorted(machine_edges, torch.tensor(beamlets.leaf_edges_mm) - 1e-3)
    return places.diff().clamp(min=1)


def aperture_area_mm2(
    left: Leaves, right: Leaves, width: Float[Tensor, " leaf_pair"], is_open: Bool[Tensor, "control_point leaf_pair"]
) -> Float[Tensor, " control_point"]:
    """Returns the open area of each aperture at the isocentre plane, over the pairs that count as open."""
    return ((right - left) * is_open) @ width.to(left)


def edge_metric(
    left: Leaves,
    right: Leaves,
    width: Float[Tensor, " leaf_pair"],
    is_open: Bool[Tensor, "control_point leaf_pair"],
    mu: Float[Tensor, " control_point"],
) -> float:
    """Returns the MU-weighted mean of leaf-side perimeter over aperture area, 1/mm; closed apertures count as 0.

    The perimeter is that along leaf travel: wherever one of two neighbouring pairs is open and the other is not, and
    at the outer pairs. Leaf ends do not count.

    Reference: Younge et al., J Appl Clin Med Phys 17(4):124 (2016), eq. 1.
    """
    opening = (right - left) * is_open
    overlap = (torch.minimum(right[:, 1:], right[:, :-1]) - torch.maximum(left[:, 1:], left[:, :-1])).clamp(min=0.0)
    overlap = overlap * (is_open[:, 1:] & is_open[:, :-1])
    # each opening has two sides; where neighbouring openings overlap, both lose the side between them
    sides = 2 * opening.sum(dim=1) - 2 * overlap.sum(dim=1)
    area = opening @ width.to(left)
    ratio = torch.where(area > 0, sides / area.clamp(min=1e-6), 0.0)
    return float((mu * ratio).sum() / mu.sum())


def modulation_complexity_score(
    left: Leaves,
    right: Leaves,
    is_open: Bool[Tensor, "control_point leaf_pair"],
    mu: Float[Tensor, " control_point"],
    control_points: ControlPoints,
) -> float:
    """Returns MCSv, the MU-weighted mean of leaf sequence variability times aperture area variability.

    It is 1 for a static open field. The papers weight the mean of two control points with the MU delivered between
    them. Here a control point is in the middle of the sector that has its MU, so its own value is weighted.

    Reference: McNiven et al., Med Phys 37:505 (2010), eqs. 1-4; Masi et al., Med Phys 40:071718 (2013), eqs. 1-3.
    """
    variability = _sequence_variability(left, is_open) * _sequence_variability(right, is_open)
    score = mu.new_zeros(())
    for arc in torch.unique(control_points.arc_index).tolist():
        of_arc = (control_points.arc_index == arc).to(left.device)
        open_in_arc = is_open[of_arc]
        low = left[of_arc].masked_fill(~open_in_arc, float("inf")).amin(dim=0)
        high = right[of_arc].masked_fill(~open_in_arc, float("-inf")).amax(dim=0)
        widest = (high - low)[open_in_arc.any(dim=0)].sum()
        share = ((right - left) * is_open)[of_arc].sum(dim=1) / widest.clamp(min=1e-6)
        score = score + (variability[of_arc] * share * mu[of_arc]).sum()
    return float(score / mu.sum())


def _sequence_variability(bank: Leaves, is_open: Tensor) -> Float[Tensor, " control_point"]:
    """Returns one bank's mean of `1 - |x_n - x_(n+1)| / (max x - min x)` over open neighbours; 1 for aligned leaves."""
    neighbours = is_open[:, 1:] & is_open[:, :-1]
    high = bank.masked_fill(~is_open, float("-inf")).amax(dim=1)
    low = bank.masked_fill(~is_open, float("inf")).amin(dim=1)
    steps = bank.diff(dim=1).abs() / (high - low).clamp(min=1e-6)[:, None]
    return 1 - (steps * neighbours).sum(dim=1) / neighbours.sum(dim=1).clamp(min=1)


def leaf_travel_mm(
    left: Leaves,
    right: Leaves,
    is_open: Bool[Tensor, "control_point leaf_pair"],
    control_points: ControlPoints,
) -> float:
    """Returns the distance a leaf travels in one arc between the X jaws, mean over arcs and leaves that open in them.

    Reference: Masi et al., Med Phys 40:071718 (2013).
    """
    travelled, leaves = left.new_zeros(()), 0
    for arc in torch.unique(control_points.arc_index).tolist():
        of_arc = (control_points.arc_index == arc).to(left.device)
        active = is_open[of_arc].any(dim=0)
        for bank in (left, right):
            travelled = travelled + bank[of_arc][:, active].diff(dim=0).abs().sum()
        leaves += 2 * int(active.sum())
    return float(travelled) / max(leaves, 1)
