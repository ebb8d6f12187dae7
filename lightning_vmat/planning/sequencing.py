"""Leaf sequencing: one aperture per control point, times monitor units, that is nearest to a fluence map."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.plan.aperture import Plan, coverage
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.shapes import FluenceMap

LEVELS = 32  # candidate aperture intensities, as fractions of the control point's maximum


def sequence(fluence_mu: FluenceMap, beamlets: BeamletGrid) -> Plan:
    """Returns the least-squares approximation `MU x aperture` of each control point's map.

    Opening a beamlet of fluence F at intensity m lowers the squared error by `2 F m - m^2`; for a given m the best
    opening of a leaf pair is the contiguous run with the largest sum, found for all rows at once from running minima of
    the cumulative sum. The best m is searched on a grid and then refitted; outer beamlets are opened in part. Leaf
    pairs without fluence, or behind the jaws, close at the middle of the control point's opening. Machine limits are
    not considered; see `plan.limits.project_to_limits`.

    Args:
        fluence_mu: non-negative fluence map.
        beamlets: grid of the map.
    """
    fluence_mu = fluence_mu * beamlets.inside_jaws.to(fluence_mu)
    peak = fluence_mu.amax(dim=(1, 2)).clamp(min=1e-6)
    levels = torch.arange(1, LEVELS + 1, device=fluence_mu.device) / LEVELS
    intensity = levels[:, None] * peak  # [level, control_point]
    best = _best_gains(fluence_mu, intensity).argmax(dim=0)  # one intensity for all leaf pairs of a control point
    mu = intensity.gather(0, best[None])[0]
    gain, first, last = _best_runs(fluence_mu, mu)
    left, right = _leaf_tips(fluence_mu / mu[:, None, None], first, last, gain > 0, beamlets)
    aperture = coverage(left, right, beamlets)
    overlap = (fluence_mu * aperture).sum(dim=(1, 2))
    # for a given aperture A the least-squares monitor units are <F, A> / <A, A>
    return Plan(left, right, overlap / aperture.square().sum(dim=(1, 2)).clamp(min=1e-6))


def _best_gains(
    fluence_mu: FluenceMap, intensity: Float[Tensor, "level control_point"]
) -> Float[Tensor, "level control_point"]:
    """Returns the gain of the best openings at each intensity; a leaf pair that gains nothing stays closed."""
    m = intensity[..., None]
    run = best = torch.zeros_like(m)
    for column in fluence_mu.unbind(dim=-1):
        run = run.clamp(min=0) + m * (2 * column - m)
        best = torch.maximum(best, run)
    return best.sum(dim=-1)


def _best_runs(
    fluence_mu: FluenceMap, mu: Float[Tensor, " control_point"]
) -> tuple[
    Float[Tensor, "control_point leaf_pair"],
    Int[Tensor, "control_point leaf_pair"],
    Int[Tensor, "control_point leaf_pair"],
]:
    """Returns gain, first and last beamlet of each row's best opening (maximum-sum run, Kadane's algorithm)."""
    m = mu[:, None, None]
    total = (2 * fluence_mu * m - m.square()).cumsum(dim=-1)
    before = torch.nn.functional.pad(total, (1, 0))[..., :-1]
    lowest, start = before.cummin(dim=-1)  # sum over a run = cumulative sum at its end minus that before its start
    gain, last = (total - lowest).max(dim=-1)
    return gain, start.gather(-1, last[..., None])[..., 0], last


def _leaf_tips(
    relative: FluenceMap,
    first: Int[Tensor, "control_point leaf_pair"],
    last: Int[Tensor, "control_point leaf_pair"],
    is_open: Tensor,
    beamlets: BeamletGrid,
) -> tuple[Float[Tensor, "control_point leaf_pair"], Float[Tensor, "control_point leaf_pair"]]:
    """Returns tips that open the outer beamlets in proportion to their fluence."""
    width = beamlets.beamlet_width_mm
    padded = torch.nn.functional.pad(relative, (1, 1)).clamp(max=1.0)

    def overhang(inner: Tensor, outer: Tensor) -> Tensor:
        # an outer beamlet with less than the intensity is closed in part; otherwise the next one is opened in part
        edge, beyond = (padded.gather(-1, i[..., None] + 1)[..., 0] for i in (inner, outer))
        return torch.where(edge < 1.0, edge - 1.0, beyond) * width

    left = beamlets.beamlet_start_mm + first * width - overhang(first, first - 1)
    right = beamlets.beamlet_start_mm + (last + 1) * width + overhang(last, last + 1)
    crossed = left > right
    middle = (left + right) / 2
    left, right = torch.where(crossed, middle, left), torch.where(crossed, middle, right)
    low = torch.where(is_open, left, torch.inf).amin(dim=-1, keepdim=True)
    high = torch.where(is_open, right, -torch.inf).amax(dim=-1, keepdim=True)
    centre = torch.where(low.isfinite(), (low + high) / 2, (beamlets.beamlet_start_mm + beamlets.beamlet_stop_mm) / 2)
    return torch.where(is_open, left, centre), torch.where(is_open, right, centre)
