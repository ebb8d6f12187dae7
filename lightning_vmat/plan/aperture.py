"""Leaves and monitor units, and the fluence map they deliver."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine


@dataclass(frozen=True)
class Plan:
    """A deliverable plan: one aperture and its monitor units for each control point, for one fraction.

    Args:
        left_mm: tips of the bank on the side of -x_b (DICOM bank X1), at the isocentre plane.
        right_mm: tips of the opposed bank.
        mu: monitor units given in each control point's sector, in one fraction.
    """

    left_mm: Float[Tensor, "control_point leaf_pair"]
    right_mm: Float[Tensor, "control_point leaf_pair"]
    mu: Float[Tensor, " control_point"]

    def fluence_mu(self, beamlets: BeamletGrid, machine: Machine) -> Float[Tensor, "control_point leaf_pair beamlet"]:
        """The fluence map that this plan delivers, with leaf transmission and dosimetric leaf gap."""
        return aperture_fluence(self.left_mm, self.right_mm, self.mu, beamlets, machine)


def coverage(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    beamlets: BeamletGrid,
) -> Float[Tensor, "control_point leaf_pair beamlet"]:
    """Fraction of each beamlet's width between the leaf tips; piecewise linear in the tips, so differentiable."""
    edges = beamlets.beamlet_edges_mm.to(left_mm)
    low = torch.maximum(left_mm[..., None], edges[:-1])
    high = torch.minimum(right_mm[..., None], edges[1:])
    return ((high - low) / beamlets.beamlet_width_mm).clamp(min=0.0)


def aperture_fluence(
    left_mm: Float[Tensor, "control_point leaf_pair"],
    right_mm: Float[Tensor, "control_point leaf_pair"],
    mu: Float[Tensor, " control_point"],
    beamlets: BeamletGrid,
    machine: Machine,
) -> Float[Tensor, "control_point leaf_pair beamlet"]:
    """Delivered fluence `MU (T + (1 - T) c)`: c the open fraction of a beamlet, T the leaf transmission.

    Rounded leaf ends let dose see each pair open by the dosimetric leaf gap more than its tips are apart.
    """
    half_gap = machine.dosimetric_leaf_gap_mm / 2
    open_fraction = coverage(left_mm - half_gap, right_mm + half_gap, beamlets)
    transmission = machine.leaf_transmission
    return mu[:, None, None] * (transmission + (1 - transmission) * open_fraction)
