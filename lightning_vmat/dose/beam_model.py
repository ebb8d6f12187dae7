"""The photon beam: what a thin ray of fluence deposits in water, as few lateral kernels times functions of depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.dose.kernel_fit import RADII_MM, blur_exponential, blur_table, fit_gaussians, leading_kernels
from lightning_vmat.dose.matrad_machine import read_matrad_machine
from lightning_vmat.dose.nyholm import kernel_terms

Array = NDArray[np.float64]

GENERIC_TPR = 0.675  # the parameterisation then returns TPR20,10 = 0.667, as a common 6 MV linac has
GENERIC_PENUMBRA_MM = 2.1  # source size and leaf ends, sigma at the isocentre plane
NYHOLM_MAX_DEPTH_MM = 500.0
SHALLOW_EXCESS, SHALLOW_MM = 0.012, 50.0
KERNELS = 3
DEPTHS_MM: Array = np.arange(0.0, 601.0)
SPREADS_MM: Array = np.array([0.0, 2.0, 4.0, 10.0, 24.0, 60.0, 150.0])  # of the Gaussians, before the penumbra
GRAY_PER_MU = 0.01  # at the reference point: 10 x 10 cm field, depth of maximum, source-surface distance = SAD


@dataclass(frozen=True)
class BeamModel:
    """Lateral kernels at the isocentre plane, each a sum of Gaussians, and their weights over depth in water.

    `dose = sum_k w_k(depth) (K_k * fluence)(x, y) (SAD / l)^2`, with (x, y) the point's beam's-eye view position and l
    its distance from the source along the beam axis. Penumbra is part of the kernels. A Gaussian is the product of
    its profiles along x and y, so that a field of rectangles is convolved exactly.

    Args:
        name: where the model comes from.
        sad_mm: source-axis distance.
        sigma_mm: width of each Gaussian.
        mixture: weight of each Gaussian in each kernel; a Gaussian integrates to one over the plane.
        depth_weights: weight of each kernel at depths 0, 1, 2, ... mm of water, Gy per MU per fraction.

    Reference: Bortfeld, Schlegel, Rhein, Med Phys 20:311 (1993); Gaussians: Ulmer, Harder, Z Med Phys 5:25 (1995).
    """

    name: str
    sad_mm: float
    sigma_mm: Float[Tensor, " gaussian"]
    mixture: Float[Tensor, "kernel gaussian"]
    depth_weights: Float[Tensor, "kernel depth"]

    def weights(self, depth_mm: Float[Tensor, "..."]) -> Float[Tensor, "kernel ..."]:
        """Weight of each kernel at radiological depths, linear between the table's."""
        return at_depth(self.depth_weights.to(depth_mm), depth_mm)

    def square_field_dose(self, side_mm: float, depth_mm: Float[Tensor, " depth"]) -> Float[Tensor, " depth"]:
        """Dose of 1 MU on the axis of a square field in water, the isocentre at each depth (as a TPR is measured)."""
        half = torch.erf(side_mm / 2 / (self.sigma_mm * 2**0.5))
        return (self.mixture @ half**2) @ self.weights(depth_mm)


def at_depth(table: Float[Tensor, "kernel depth"], depth_mm: Float[Tensor, "..."]) -> Float[Tensor, "kernel ..."]:
    """Values of a table over depths 0, 1, 2, ... mm at any depths, linear between the table's, constant beyond."""
    place = depth_mm.clamp(0, table.shape[1] - 1)
    lower = place.long().clamp(max=table.shape[1] - 2)
    return torch.lerp(table[:, lower], table[:, lower + 1], place - lower)


def load_beam_model(name_or_path: str | Path) -> BeamModel:
    """The built-in `generic_6mv`, or the model in a matRad machine file (.mat), at 1 cGy per MU at the reference point.

    Raises:
        ValueError: no such model, or a file that is not a photon machine.
    """
    if str(name_or_path) == "generic_6mv":
        return generic_6mv()
    path = Path(name_or_path)
    if path.suffix != ".mat" or not path.is_file():
        raise ValueError(f"beam model {name_or_path}: expected generic_6mv or an existing matRad machine file (.mat)")
    return matrad_model(path)


@cache
def matrad_model(path: Path, ssd_mm: float = 900.0) -> BeamModel:
    """The model in a matRad machine file, with the kernels of the source-surface distance nearest to the one given."""
    machine = read_matrad_machine(path, ssd_mm)
    blurred = blur_table(machine.kernels, machine.radii_mm, machine.penumbra_sigma_mm)
    sigma = np.hypot(SPREADS_MM, machine.penumbra_sigma_mm)
    weights = machine.depth_weights(DEPTHS_MM)
    return _calibrated(path.stem, machine.sad_mm, sigma, fit_gaussians(blurred, sigma), weights)


@cache
def generic_6mv() -> BeamModel:
    """A 6 MV linac: Nyholm's kernel where it returns TPR20,10 = 0.667, factorised into three kernels.

    Kernels here do not widen with the distance from the source. Dose near the surface is lowered by about 1 %, so that
    the depth dose at fixed source-surface distance is still that of the original (66 % at 10 cm), as is the TPR.
    """
    primary, scatter = kernel_terms(GENERIC_TPR, np.minimum(DEPTHS_MM, NYHOLM_MAX_DEPTH_MM))
    kernel = np.zeros((len(DEPTHS_MM), len(RADII_MM)))
    for energy, slope in (primary, scatter):
        kernel += energy[:, None] * blur_exponential(slope, GENERIC_PENUMBRA_MM)
    sigma = np.hypot(SPREADS_MM, GENERIC_PENUMBRA_MM)
    weights, kernels = leading_kernels(kernel, KERNELS)
    weights *= 1 - SHALLOW_EXCESS * np.exp(-((DEPTHS_MM / SHALLOW_MM) ** 2))
    return _calibrated("generic_6mv", 1000.0, sigma, fit_gaussians(kernels, sigma), weights)


def _calibrated(name: str, sad_mm: float, sigma_mm: Array, mixture: Array, depth_weights: Array) -> BeamModel:
    """Scale a model to `GRAY_PER_MU` at the reference point."""
    raw = BeamModel(name, sad_mm, *(torch.from_numpy(a) for a in (sigma_mm, mixture, depth_weights)))
    depth = torch.from_numpy(DEPTHS_MM[:60])
    peak = float((raw.square_field_dose(100.0, depth) * (sad_mm / (sad_mm + depth)) ** 2).max())
    return replace(raw, depth_weights=raw.depth_weights * (GRAY_PER_MU / peak))
