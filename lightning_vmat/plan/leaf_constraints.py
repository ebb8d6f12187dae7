"""What holds between the leaves of a control point and along an arc, and the tips nearby that keep it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from lightning_vmat.plan.machine import Machine

TOLERANCE_MM = 1e-3  # float32 rounding of positions near 200 mm
AT_REST_MM = 5.0
"""Range of a closed pair's tips in an arc that counts as none: what a step of aperture optimization shakes a pair by
that it has no reason to open."""
Tips = Float[Tensor, "*control_point leaf_pair"]


def interdigitating(left: Tips, right: Tips) -> Bool[Tensor, "control_point neighbours"]:
    """Where a leaf has passed an opposed neighbour: each two neighbours, both ways round."""
    up, down = left[:, 1:] - right[:, :-1], left[:, :-1] - right[:, 1:]
    return torch.cat((up, down), dim=1) > TOLERANCE_MM


def opened(left: Tips, right: Tips, gap_mm: float, interdigitation: bool = True) -> tuple[Tips, Tips]:
    """Pairs at least so far open, about their middles, and no leaf past its opposed neighbours.

    Both are linear inequalities between a left and a right tip. They hold where the left tips stay and the right ones
    give way, and where the left ones give way and the right ones stay; hence also halfway between the two.

    Args:
        left: tips of the left bank.
        right: tips of the right bank.
        gap_mm: least opening of a pair.
        interdigitation: whether leaves may pass their opposed neighbours.
    """
    needed, allowed = left + gap_mm, right - gap_mm
    if not interdigitation:
        needed = torch.maximum(needed, _of_neighbours(left))
        allowed = torch.minimum(allowed, -_of_neighbours(-right))
    return (left + torch.minimum(left, allowed)) / 2, (right + torch.maximum(right, needed)) / 2


def _of_neighbours(bank: Tips) -> Tips:
    """The largest tip of the neighbours of each leaf."""
    below = pad(bank[..., :-1], (1, 0), value=-torch.inf)
    return torch.maximum(below, pad(bank[..., 1:], (0, 1), value=-torch.inf))


def gathered(left: Tips, right: Tips, machine: Machine) -> tuple[Tips, Tips]:
    """Closed pairs moved to where open ones beside them let them be, at control points where leaves interdigitate.

    Without this, `opened` would bring a closed pair and its open neighbour together halfway, and dose with them. All
    closed pairs between two open ones come to stand in one place: within both of these, and as near to the middle of
    the aperture as that allows. Nothing changes on a machine with interdigitation.
    """
    if machine.interdigitation:
        return left, right
    middle, is_open = (left + right) / 2, right - left > machine.min_leaf_gap_mm + TOLERANCE_MM
    none = ~is_open.any(dim=1, keepdim=True)
    centre = torch.where(is_open | none, middle, 0.0).sum(dim=1) / (is_open | none).sum(dim=1)
    lowest, highest = _of_open_beside(left, is_open), -_of_open_beside(-right, is_open)
    place = torch.minimum(torch.maximum(centre[:, None], lowest), highest)
    place = torch.where(lowest > highest, (lowest + highest) / 2, place)
    moved = ~is_open & interdigitating(left, right).any(dim=1, keepdim=True)
    half = (right - left).clamp(min=0.0) / 2
    return torch.where(moved, place - half, left), torch.where(moved, place + half, right)


def _of_open_beside(bank: Tips, is_open: Bool[Tensor, "control_point leaf_pair"]) -> Tips:
    """The larger tip of the next open pair below and the next one above; minus infinity where there is none."""
    count = bank.shape[1]
    number = torch.arange(count, device=bank.device)
    below = torch.where(is_open, number, -1).cummax(dim=1).values
    above = torch.where(is_open, number, count).flip(1).cummin(dim=1).values.flip(1)
    tips = pad(bank, (1, 1), value=-torch.inf)
    return torch.maximum(tips.gather(1, below + 1), tips.gather(1, above + 1))


def parked(given: tuple[Tips, Tips], projected: tuple[Tips, Tips], machine: Machine) -> tuple[Tips, Tips]:
    """One arc with the pairs at rest that were given at rest, closed below the least gap at all of its control points.

    They stand at the mean of their given places, no further open than leaves at rest must be: nothing adds to the dose
    that they let through. Where the span of a bank or a neighbour would not allow it, pairs move and are opened as
    projected. Pairs that are closed on the move are left to move: to stop them would keep planners from bringing them
    to where they are to open.

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
    span_mm = max(float((bank.amax(dim=-1) - bank.amin(dim=-1)).max()) for bank in (left, right))
    collides = not machine.interdigitation and bool(interdigitating(left, right).any())
    return projected if collides or span_mm > machine.max_leaf_span_mm + TOLERANCE_MM / 2 else (left, right)


def within_span(bank: Tips, lowest_mm: float, highest_mm: float, max_span_mm: float) -> Tips:
    """A bank's tips between two positions and within the allowed span, at each control point about its middle."""
    bank = bank.clamp(lowest_mm, highest_mm)
    middle = (bank.amin(dim=-1, keepdim=True) + bank.amax(dim=-1, keepdim=True)) / 2
    return bank.clamp(middle - max_span_mm / 2, middle + max_span_mm / 2)


def limit_speed(
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
