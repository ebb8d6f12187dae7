"""Constraints between the leaves of a control point and along an arc, and projections onto them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from lightning_vmat.plan.machine import Machine

TOLERANCE_MM = 1e-3  # float32 rounding of positions near 200 mm
AT_REST_MM = 5.0
"""A closed pair whose tips stay within this range over an arc counts as at rest: a step of aperture optimization moves
pairs by about this much even where it has no reason to open them."""
Tips = Float[Tensor, "*control_point leaf_pair"]


def interdigitating(left: Tips, right: Tips) -> Bool[Tensor, "control_point neighbours"]:
    """Returns where a leaf has passed an opposed neighbour, for each two neighbouring pairs and both diagonals."""
    up, down = left[:, 1:] - right[:, :-1], left[:, :-1] - right[:, 1:]
    return torch.cat((up, down), dim=1) > TOLERANCE_MM


def opened(left: Tips, right: Tips, gap_mm: float, interdigitation: bool = True) -> tuple[Tips, Tips]:
    """Opens pairs symmetrically to the minimum gap, and moves leaves back that have passed opposed neighbours.

    Both constraints are linear inequalities between a left and a right tip. Moving the right tips alone satisfies them,
    and so does moving the left tips alone; the mean of these two solutions satisfies them too, because the constraints
    are convex.

    Args:
        left: tips of the left bank.
        right: tips of the right bank.
        gap_mm: minimum opening of a pair.
        interdigitation: whether leaves may pass their opposed neighbours.
    """
    needed, allowed = left + gap_mm, right - gap_mm
    if not interdigitation:
        needed = torch.maximum(needed, _of_neighbours(left))
        allowed = torch.minimum(allowed, -_of_neighbours(-right))
    return (left + torch.minimum(left, allowed)) / 2, (right + torch.maximum(right, needed)) / 2


def _of_neighbours(bank: Tips) -> Tips:
    """Returns the larger tip of each leaf's two neighbours in the same bank."""
    below = pad(bank[..., :-1], (1, 0), value=-torch.inf)
    return torch.maximum(below, pad(bank[..., 1:], (0, 1), value=-torch.inf))


def gathered(left: Tips, right: Tips, machine: Machine) -> tuple[Tips, Tips]:
    """Moves closed pairs to where their open neighbours allow them, at control points where leaves interdigitate.

    Without this, `opened` would move a closed pair and its open neighbour halfway towards each other and so change the
    dose. All closed pairs between two open ones move to one place: inside both openings, and as near to the middle of
    the aperture as that allows. Nothing changes on a machine that allows interdigitation.
    """
    if machine.interdigitation:
        return left, right
    middle, is_open = (left + right) / 2, right - left > machine.min_leaf_gap_mm + TOLERANCE_MM
    none = ~is_open.any(dim=1, keepdim=True)  # without an open pair the mean is over all pairs
    centre = torch.where(is_open | none, middle, 0.0).sum(dim=1) / (is_open | none).sum(dim=1)
    lowest, highest = _of_open_beside(left, is_open), -_of_open_beside(-right, is_open)
    place = torch.minimum(torch.maximum(centre[:, None], lowest), highest)
    place = torch.where(lowest > highest, (lowest + highest) / 2, place)  # openings that do not overlap: halfway
    moved = ~is_open & interdigitating(left, right).any(dim=1, keepdim=True)
    half = (right - left).clamp(min=0.0) / 2
    return torch.where(moved, place - half, left), torch.where(moved, place + half, right)


def _of_open_beside(bank: Tips, is_open: Bool[Tensor, "control_point leaf_pair"]) -> Tips:
    """Returns the larger tip of the next open pair below and the next one above; minus infinity where there is none."""
    count = bank.shape[1]
    number = torch.arange(count, device=bank.device)
    # running maximum and minimum of the open pairs' numbers give the next open pair on each side without a loop
    below = torch.where(is_open, number, -1).cummax(dim=1).values
    above = torch.where(is_open, number, count).flip(1).cummin(dim=1).values.flip(1)
    tips = pad(bank, (1, 1), value=-torch.inf)
    return torch.maximum(tips.gather(1, below + 1), tips.gather(1, above + 1))


def parked(given: tuple[Tips, Tips], projected: tuple[Tips, Tips], machine: Machine) -> tuple[Tips, Tips]:
    """Keeps pairs at rest over one arc that were given at rest and closed below the minimum gap at all control points.

    They stay at the mean of their given positions, open by no more than the minimum gap of leaves at rest, so that they
    transmit no additional dose. If this would break the span of a bank or collide with a neighbour, all pairs are
    returned as projected. Closed pairs that move are not stopped: that would keep planners from bringing them to where
    they are to open.

    Args:
        given: left and right tips before the projection.
        projected: left and right tips within all limits.
        machine: gives the limits.
    """
    closed = (given[1] - given[0] < machine.min_leaf_gap_mm - TOLERANCE_MM).all(dim=0)
    for bank in given:
        closed &= bank.amax(dim=0) - bank.amin(dim=0) <= AT_REST_MM
    if not bool(closed.any()):
        return projected
    limit_mm = machine.max_leaf_position_mm - machine.min_still_leaf_gap_mm / 2
    left, right = (bank.mean(dim=0).clamp(-limit_mm, limit_mm) for bank in given)
    tips = opened(left, right, machine.min_still_leaf_gap_mm)
    left, right = (torch.where(closed, tip, bank) for tip, bank in zip(tips, projected, strict=True))
    span_mm = max(float((bank.amax(dim=-1) - bank.amin(dim=-1)).detach().max()) for bank in (left, right))
    collides = not machine.interdigitation and bool(interdigitating(left, right).any())
    return projected if collides or span_mm > machine.max_leaf_span_mm + TOLERANCE_MM / 2 else (left, right)


def within_span(bank: Tips, lowest_mm: float, highest_mm: float, max_span_mm: float) -> Tips:
    """Clips a bank's tips between two positions, then to the maximum span about their middle at each control point."""
    bank = bank.clamp(lowest_mm, highest_mm)
    middle = (bank.amin(dim=-1, keepdim=True) + bank.amax(dim=-1, keepdim=True)) / 2
    return bank.clamp(middle - max_span_mm / 2, middle + max_span_mm / 2)


def limit_speed(
    path: Float[Tensor, "control_point leaf_pair"],
    reach: Float[Tensor, " step"],
) -> Float[Tensor, "control_point leaf_pair"]:
    """Returns the nearest path (in the maximum norm) that moves at most `reach` in each step, mm.

    The mean of the largest minorant and the smallest majorant with the allowed slope is a nearest such path.
    """
    place = torch.cat((reach.new_zeros(1), reach.cumsum(0)))[:, None]
    return (_minorant(path, place) - _minorant(-path, place)) / 2


def _minorant(
    path: Float[Tensor, "control_point leaf_pair"],
    place: Float[Tensor, "control_point 1"],
) -> Float[Tensor, "control_point leaf_pair"]:
    """Returns `min_j path_j + |place_i - place_j|`: the largest path below `path` with slope at most one in `place`."""
    # split at i: for j <= i the minimum is a running minimum of path - place, for j >= i of path + place from the end
    from_before = place + (path - place).cummin(dim=0).values
    from_after = (path + place).flip(0).cummin(dim=0).values.flip(0) - place
    return torch.minimum(from_before, from_after)
