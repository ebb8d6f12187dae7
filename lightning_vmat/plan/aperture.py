"""Leaf tips and monitor units of a plan, and the fluence map that they deliver."""

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

    Between these middles the leaves move linearly (see `sector_ends`).

    >>> import torch
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.plan.aperture import Plan
    >>> setup = vmat.phantom(0, size="tiny").beam_setup
    >>> tips_mm = torch.full((len(setup.control_points), setup.beamlets.shape[0]), 20.0)
    >>> plan = Plan(-tips_mm, tips_mm, mu=torch.full((len(setup.control_points),), 10.0))
    >>> fluence_mu = plan.fluence_mu(setup)  # [control_point, leaf_pair, beamlet]
    >>> fluence_mu.shape[0] == len(setup.control_points), round(float(fluence_mu.max()), 3)
    (True, 10.0)

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
        """Returns the fluence map that the plan delivers while its leaves move, MU; see `delivered_fluence`."""
        return delivered_fluence(self.left_mm, self.right_mm, self.mu, setup)

    def half_sector_fluence_mu(self, setup: BeamSetup) -> Float[Tensor, "half_sector leaf_pair beamlet"]:
        """Returns the fluence of each half sector, MU, in order of delivery: before and after each sector's middle."""
        covered = _covered(self.left_mm, self.right_mm, self.mu, setup)
        halves = _fluence(self.mu / 2, covered, setup)
        return halves.transpose(0, 1).flatten(0, 1)


def coverage(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    beamlets: BeamletGrid,
) -> FluenceMap:
    """Returns the fraction of each beamlet's width that lies between leaf tips at rest."""
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

    The open fraction is the exact mean over the leaf motion in the sector, with half of the monitor units in each half
    of it. It is valid where no right tip is left of its opposed left tip. Rounded leaf ends transmit dose, so each pair
    counts as open by the dosimetric leaf gap more than the distance of its tips.

    Args:
        left_mm: tips of the left bank in the middle of each sector.
        right_mm: tips of the right bank.
        mu: monitor units of each sector.
        setup: control points, beamlets and machine.

    Returns:
        Fluence in MU; differentiable with respect to tips and monitor units.
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
    # open fraction = covered by the right bank minus covered by the left bank; tips that have crossed clamp to closed
    transmission = setup.machine.leaf_transmission
    return mu[:, None, None] * (transmission + (1 - transmission) * (right - left).clamp(min=0.0))
