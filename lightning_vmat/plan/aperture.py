"""Leaves and monitor units, and the fluence map that they deliver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.leaf_motion import mean_coverage, sector_ends
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class Plan:
    """A deliverable plan for one fraction: leaf tips in the middle of each sector, and the sector's monitor units.

    Between the middles the leaves move linearly (see `sector_ends`).

    Args:
        left_mm: tips of the bank on the side of -x_b (DICOM bank X1), at the isocentre plane.
        right_mm: tips of the opposed bank.
        mu: monitor units given in each control point's sector, in one fraction.
    """

    left_mm: Float[Tensor, "control_point leaf_pair"]
    right_mm: Float[Tensor, "control_point leaf_pair"]
    mu: Float[Tensor, " control_point"]

    def __repr__(self) -> str:
        control_points, leaf_pairs = self.left_mm.shape
        return f"Plan of {control_points} control points, {leaf_pairs} leaf pairs, {float(self.mu.sum()):.0f} MU"

    def fluence_mu(self, setup: BeamSetup) -> FluenceMap:
        """The fluence map that this plan delivers while its leaves move."""
        return delivered_fluence(self.left_mm, self.right_mm, self.mu, setup)

    def half_sector_fluence_mu(self, setup: BeamSetup) -> Float[Tensor, "half_sector leaf_pair beamlet"]:
        """The same for each half of the sectors, one after the other: before the middle and behind it."""
        covered = _covered(self.left_mm, self.right_mm, self.mu, setup)
        halves = _fluence(self.mu / 2, covered, setup)
        return halves.transpose(0, 1).flatten(0, 1)


def coverage(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    beamlets: BeamletGrid,
) -> FluenceMap:
    """Fraction of each beamlet's width between still leaf tips."""
    edges = beamlets.beamlet_edges_mm.to(left_mm)
    low = torch.maximum(left_mm[..., None], edges[:-1])
    high = torch.minimum(right_mm[..., None], edges[1:])
    return ((high - low) / beamlets.beamlet_width_mm).clamp(min=0.0)


def delivered_fluence(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    mu: Float[Tensor, " control_point"],
    setup: BeamSetup,
) -> FluenceMap:
    """Delivered fluence `MU (T + (1 - T) c)`: c the open fraction of a beamlet, T the leaf transmission.

    The open fraction is the exact mean over the motion of the leaves in the sector, each half of which has half of
    its monitor units. It holds where the right tip is nowhere left of the left one. Rounded leaf ends let dose see
    each pair open by the dosimetric leaf gap more than its tips are apart.

    Args:
        left_mm: tips of the left bank in the middle of each sector.
        right_mm: tips of the right bank.
        mu: monitor units of each sector.
        setup: control points, beamlets and machine.

    Returns:
        Fluence in MU; differentiable by tips and monitor units.
    """
    return _fluence(mu, _covered(left_mm, right_mm, mu, setup).mean(dim=0), setup)


def _covered(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    mu: Float[Tensor, " control_point"],
    setup: BeamSetup,
) -> Float[Tensor, "half bank control_point leaf_pair beamlet"]:
    """Mean fraction of each beamlet on the low side of each tip, in both halves of each sector."""
    half_gap_mm = setup.machine.dosimetric_leaf_gap_mm / 2
    middle = torch.stack((left_mm - half_gap_mm, right_mm + half_gap_mm))
    begin, end = sector_ends(middle, mu, setup)
    return mean_coverage(torch.stack((begin, middle)), torch.stack((middle, end)), setup.beamlets)


def _fluence(
    mu: Float[Tensor, " control_point"],
    covered: Float[Tensor, "*half bank control_point leaf_pair beamlet"],
    setup: BeamSetup,
) -> Float[Tensor, "*half control_point leaf_pair beamlet"]:
    left, right = covered.unbind(dim=-4)
    transmission = setup.machine.leaf_transmission
    return mu[:, None, None] * (transmission + (1 - transmission) * (right - left).clamp(min=0.0))
