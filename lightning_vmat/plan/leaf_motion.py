"""Leaf motion: tip positions at sector boundaries, and the mean coverage of beamlets during a move, in closed form."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid

SHORTEST = 1e-3
"""Shortest length of a move, in beamlet widths. `mean_coverage` divides by the length, so a leaf at rest counts as
moving by this much; it also rounds the kink where a tip is on a beamlet edge (over 5 micrometres for beamlets of 5 mm).
"""

Bank = Float[Tensor, "*banks control_point leaf_pair"]


def gantry_half_sector_seconds(setup: BeamSetup) -> Float[Tensor, " control_point"]:
    """Time for half of each sector at the gantry's full speed."""
    return setup.control_points.sector_deg / 2 / setup.machine.gantry_speed_deg_per_s


def half_sector_seconds(mu: Float[Tensor, " control_point"], setup: BeamSetup) -> Float[Tensor, " control_point"]:
    """Returns the shortest time for half of each sector: the gantry's or the dose rate's, whichever is longer."""
    return torch.maximum(gantry_half_sector_seconds(setup).to(mu), mu / 2 / setup.machine.dose_rate_mu_per_s)


def sector_ends(tips_mm: Bank, mu: Float[Tensor, " control_point"], setup: BeamSetup) -> tuple[Bank, Bank]:
    """Returns leaf tips at the beginning and at the end of each sector.

    A plan gives the tips in the middle of each sector. Between two middles each leaf moves at constant speed, so at the
    boundary of the sectors it has covered the same share of its way as of the time. Leaves are at rest in the first and
    in the last half sector of an arc.

    Args:
        tips_mm: tips in the middle of each sector, for one or more banks.
        mu: monitor units of each sector.
        setup: gives the arcs and the machine's speeds.

    Returns:
        Tips at the beginning and at the end of each sector, mm; differentiable with respect to tips and monitor units.
    """
    half_s = half_sector_seconds(mu, setup)
    share = torch.where(setup.same_arc.to(mu.device), half_s[:-1] / (half_s[:-1] + half_s[1:]), 0.0)
    # zero in both directions between two arcs: the leaves reposition while the beam is off
    back = torch.where(setup.same_arc.to(mu.device), 1 - share, 0.0)
    step_mm = tips_mm.diff(dim=-2)
    still = torch.zeros_like(tips_mm[..., :1, :])
    end = tips_mm + torch.cat((share[:, None] * step_mm, still), dim=-2)
    begin = tips_mm - torch.cat((still, back[:, None] * step_mm), dim=-2)
    return begin, end


def mean_coverage(
    begin_mm: Float[Tensor, "*tip"], end_mm: Float[Tensor, "*tip"], beamlets: BeamletGrid
) -> Float[Tensor, "*tip beamlet"]:
    """Returns the mean, over a linear move, of the fraction of each beamlet on the low side of a leaf tip.

    The fraction of beamlet k is `clamp(t - k, 0, 1)` with the tip t in beamlet widths from the first edge, hence the
    difference of `max(t - e, 0)` at its two edges. The mean of this over a move from `low` to `high` is
    `(high - low) q^2 / 2 + max(low - e, 0)`, where `q = clamp((high - e) / (high - low), 0, 1)` is the share of the
    move beyond edge e.

    Args:
        begin_mm: tips at the beginning of the move.
        end_mm: tips at its end.
        beamlets: the beamlet grid.

    Returns:
        Fractions; differentiable once; exact within 2e-6 in float32.
    """
    begin, end = ((tip - beamlets.beamlet_start_mm) / beamlets.beamlet_width_mm for tip in (begin_mm, end_mm))
    beyond: Tensor = _MeanBeyond.apply(begin, end, beamlets.beamlets)  # type: ignore[no-untyped-call]
    return -beyond.diff(dim=-1)


def time_in_beamlets(
    begin_mm: Float[Tensor, "*tip"], end_mm: Float[Tensor, "*tip"], beamlets: BeamletGrid
) -> Float[Tensor, "*tip beamlet"]:
    """Returns the share of a linear move spent in each beamlet: the derivative of `mean_coverage` by a shift."""
    begin, end = ((tip - beamlets.beamlet_start_mm) / beamlets.beamlet_width_mm for tip in (begin_mm, end_mm))
    return -_share_beyond(begin, end, beamlets.beamlets)[0].diff(dim=-1)


def _share_beyond(begin: Tensor, end: Tensor, beamlets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the share of a move beyond edges 0, 1, ..., its length, and how far its lower end is beyond each edge."""
    # about the middle, so that the minimum length moves both ends of a short move by the same amount
    middle, length = (begin + end) / 2, (end - begin).abs().clamp(min=SHORTEST)[..., None]
    edge = torch.arange(beamlets + 1, dtype=begin.dtype, device=begin.device)
    low = (middle[..., None] - length / 2) - edge
    return ((low + length) / length).clamp_(0, 1), length, low


class _MeanBeyond(torch.autograd.Function):
    """Mean of `max(t - e, 0)` over a move, at edges e = 0, 1, ..., with explicit derivatives.

    The derivatives are `q - q^2 / 2` by the higher end of the move and `q^2 / 2` by the lower end.
    """

    @staticmethod
    def forward(ctx: Any, begin: Tensor, end: Tensor, beamlets: int) -> Tensor:
        share, length, low = _share_beyond(begin, end, beamlets)
        ctx.save_for_backward(share, end >= begin)
        return (share.square() * (length / 2)).add_(low.clamp_(min=0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        share, forward = ctx.saved_tensors
        by_both = gradient * share  # the derivatives by both ends sum to q, the share of the move beyond the edge
        by_low = (by_both * share).sum(dim=-1) / 2
        by_high = by_both.sum(dim=-1) - by_low
        return torch.where(forward, by_low, by_high), torch.where(forward, by_high, by_low), None
