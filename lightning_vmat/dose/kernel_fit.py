"""Lateral kernels, blurred by the penumbra, as sums of Gaussians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

Array = NDArray[np.float64]

RADII_MM: Array = np.geomspace(0.2, 300.0, 120)  # radii at which kernels are sampled
RING_WEIGHT: Array = RADII_MM**1.25  # between dose per area (0) and per logarithmic ring (2): centre and scatter count


def gaussians(sigma_mm: Array, radii_mm: Array) -> Array:
    """Returns Gaussians of unit integral over the plane [gaussian, radius]."""
    variance = sigma_mm[:, None] ** 2
    return np.asarray(np.exp(-(radii_mm**2) / (2 * variance)) / (2 * np.pi * variance))


def leading_kernels(kernels: Array, count: int) -> tuple[Array, Array]:
    """Factorises kernels at all depths [depth, radius] into a few kernels with weights over depth.

    Returns:
        The weights [kernel, depth] and the kernels [kernel, radius] at `RADII_MM`.
    """
    # the truncated singular value decomposition is the best such factorisation in the norm of RING_WEIGHT
    left, values, right = np.linalg.svd(kernels * RING_WEIGHT, full_matrices=False)
    return (left[:, :count] * values[:count]).T, right[:count] / RING_WEIGHT


def fit_gaussians(kernels: Array, sigma_mm: Array) -> Array:
    """Returns the weights [kernel, gaussian] of the sums of Gaussians nearest to kernels [kernel, radius]."""
    weights, *_ = np.linalg.lstsq(
        (gaussians(sigma_mm, RADII_MM) * RING_WEIGHT).T, (kernels * RING_WEIGHT).T, rcond=1e-10
    )
    return np.asarray(weights.T)


def blur_exponential(slope_per_mm: Array, penumbra_mm: float) -> Array:
    """Returns `s exp(-s r) / (2 pi r)` convolved with a Gaussian, at `RADII_MM` [slope, radius].

    The kernel is an exact mixture of Gaussians of variance 2 t^2 / s^2 with density 2 / sqrt(pi) exp(-t^2).
    """
    log_t = np.linspace(np.log(1e-3), np.log(6.0), 160)
    t = np.exp(log_t)
    density = 2 / np.sqrt(np.pi) * np.exp(-(t**2)) * t * (log_t[1] - log_t[0])
    density[0] += 1 - density.sum()  # the density below the smallest t goes to that t, a Gaussian of nearly no width
    return np.stack([density @ gaussians(np.hypot(2**0.5 * t / s, penumbra_mm), RADII_MM) for s in slope_per_mm])


def blur_table(kernels: Array, radii_mm: Array, penumbra_mm: float) -> Array:
    """Returns tabulated kernels convolved with a Gaussian, at `RADII_MM` [kernel, radius].

    A table of step h represents point masses h^2 K(r) on a square lattice of step h, the discrete convolution for which
    such tables are made.
    """
    step, last = radii_mm[1], len(radii_mm) - 1
    lattice = np.arange(-last, last + 1) ** 2
    squares, count = np.unique(lattice[:, None] + lattice, return_counts=True)
    inside = squares <= last**2
    radius = step * np.sqrt(squares[inside])
    mass = np.stack([np.interp(radius, radii_mm, kernel) for kernel in kernels]) * count[inside] * step**2
    variance = penumbra_mm**2
    # the mean of a Gaussian over a ring is exp(-(r^2 + R^2) / 2v) I0(r R / v); `ive` is I0 scaled so as not to overflow
    bessel = ive(0, RADII_MM[:, None] * radius / variance)
    ring = np.exp(-((RADII_MM[:, None] - radius) ** 2) / (2 * variance)) * bessel / (2 * np.pi * variance)
    return np.asarray(mass @ ring.T)
