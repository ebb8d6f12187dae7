"""Compares kernels as sums of Gaussians with the table that they were fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import erf
from torch import Tensor

from lightning_vmat.dose.beam_model import even_beam, matrad_model
from lightning_vmat.dose.matrad_machine import MatradMachine, read_matrad_machine
from lightning_vmat.metrics.check import Check

SIDES_MM = (5.0, 20.0, 40.0, 50.0, 100.0, 200.0, 300.0)
DEPTHS_MM = (15.0, 50.0, 100.0, 200.0, 300.0)
SSD_MM = 900.0


def kernel_fit_checks(path: Path) -> Iterator[Check]:
    """Figures of the dose on the axis of square fields, from one beamlet to 30 x 30 cm, by the fit and by the table."""
    machine, model = read_matrad_machine(path, SSD_MM), even_beam(matrad_model(path, SSD_MM, calibrated=False))
    depth_mm = torch.tensor(DEPTHS_MM, dtype=torch.double)
    worst = [
        float((model.square_field_dose(side_mm, depth_mm) / table_dose(machine, side_mm, depth_mm) - 1).abs().max())
        for side_mm in SIDES_MM
    ]
    yield Check(
        path.name, "sums of Gaussians against the kernel table: largest difference on axis", max(worst), high=0.005
    )


def table_dose(machine: MatradMachine, side_mm: float, depth_mm: Float[Tensor, " depth"]) -> Float[Tensor, " depth"]:
    """Dose on the axis of an even square field by the table alone, as point masses on the lattice of its radii."""
    step, last = machine.radii_mm[1], len(machine.radii_mm) - 1
    place: NDArray[np.float64] = step * np.arange(-last, last + 1)
    spread = machine.penumbra_sigma_mm * 2**0.5
    opened = (erf((place + side_mm / 2) / spread) - erf((place - side_mm / 2) / spread)) / 2
    radius = np.hypot(place, place[:, None])
    seen = [opened @ np.interp(radius, machine.radii_mm, k, right=0.0) @ opened * step**2 for k in machine.kernels]
    return torch.from_numpy(np.asarray(seen) @ machine.depth_weights(depth_mm.numpy()))
