"""Fit of the beam model's parameters to measurements."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares

from lightning_vmat.dose.beam_model import (
    DEPTHS_MM,
    KERNELS,
    NYHOLM_MAX_DEPTH_MM,
    SPREADS_MM,
    BeamModel,
    calibrate,
    nyholm_kernels,
)
from lightning_vmat.dose.commissioning.measurements import REFERENCE_MM, SAME_MM, Curve, Measurements
from lightning_vmat.dose.commissioning.water import basis_dose, curve_dose, point_dose, relative
from lightning_vmat.dose.kernel_fit import fit_gaussians, leading_kernels

Array = NDArray[np.float64]

NODES_MM: Array = np.concatenate((np.arange(0.0, 40.0, 2.0), np.arange(40.0, 601.0, 10.0)))
KNOTS_MM: Array = np.array([0, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400], float)
REFERENCE_DEPTH_MM = 100.0
RADIUS_STEP_MM = 10.0
SMOOTH = 0.02  # weight of second differences of the depth correction and the open fluence, against residuals of 1 %
INSIDE_MM = 12.0  # distance from the field edge from which profiles depend on the open fluence, not on the penumbra
QUALITY_OFFSET = 0.008  # Nyholm's kernel for 0.675 returns a TPR20,10 of 0.667
QUALITIES = (0.60, 0.81)
LARGEST_RMS = 0.03
TURNS = 3


@dataclass(frozen=True)
class Residual:
    """Measured and fitted values of a curve.

    Args:
        curve: the measured curve.
        measured: its values on the scale of the computed ones.
        computed: values of the fitted beam; the largest is about 1.
    """

    curve: Curve
    measured: Array
    computed: Array

    @property
    def rms(self) -> float:
        """Root mean square difference, relative to a maximum of about 1."""
        return float(np.sqrt(np.mean((self.measured - self.computed) ** 2)))

    @property
    def largest(self) -> float:
        """Largest absolute difference, relative to a maximum of about 1."""
        return float(np.abs(self.measured - self.computed).max())


@dataclass(frozen=True)
class BeamFit:
    """A fitted beam and its residuals.

    Args:
        model: the calibrated beam.
        quality: TPR20,10 passed to Nyholm's kernel.
        scatter: factor on the kernel's scatter term; above 1 if the linac's head scatters as well.
        penumbra_mm: sigma of the Gaussian penumbra.
        residuals: residual of each curve.
    """

    model: BeamModel
    quality: float
    scatter: float
    penumbra_mm: float
    residuals: tuple[Residual, ...]


def fit_beam(measured: Measurements, name: str, sad_mm: float) -> BeamFit:
    """Fits a beam to measurements.

    The kernel is Nyholm's for the measured TPR20,10 with a factor on its scatter term. Factor and penumbra are fitted
    to output factors and profiles. For given values of them the rest is linear and has a closed solution: a factor over
    depth that corrects depth doses, and the open fluence over the distance from the axis.

    Args:
        measured: the measurements.
        name: name of the model.
        sad_mm: source-axis distance.

    Raises:
        ValueError: a beam quality outside the kernel's range, or curves that the model cannot fit.
    """
    quality = _quality(measured, sad_mm)

    def residuals(parameters: Array) -> Array:
        model = _solved(measured, quality, float(parameters[0]), float(parameters[1]), name, sad_mm)
        parts = []
        for curve in measured.of_kind("output_factor", "profile"):
            values, computed = relative(curve, curve_dose(model, curve))
            parts.append((values - computed) / np.sqrt(len(values)))
        return np.concatenate(parts)

    found = least_squares(
        residuals, (1.0, 2.5), bounds=((0.2, 0.8), (4.0, 8.0)), diff_step=(1e-2, 1e-2), xtol=1e-4, ftol=1e-5
    )
    scatter, penumbra_mm = (float(value) for value in found.x)
    model = _scaled(_solved(measured, quality, scatter, penumbra_mm, name, sad_mm), measured)
    fit = BeamFit(model, quality, scatter, penumbra_mm, tuple(
        Residual(curve, *relative(curve, curve_dose(model, curve))) for curve in measured.curves
    ))  # fmt: skip
    worst = max(fit.residuals, key=lambda residual: residual.rms)
    if worst.rms > LARGEST_RMS:
        raise ValueError(
            f"{measured.path}: {worst.curve.name} differs by {worst.rms:.1%} (rms) from the nearest beam, expected at "
            f"most {LARGEST_RMS:.0%}; check its field, depths and distances"
        )
    return fit


def _quality(measured: Measurements, sad_mm: float) -> float:
    """Returns Nyholm's quality index for the reference field's TPR20,10, from a TPR or a depth dose."""
    curves = [curve for curve in measured.of_kind("tpr", "pdd") if abs(curve.field_mm[0] - REFERENCE_MM) <= SAME_MM]
    curves = [curve for curve in curves if curve.depth_mm.max() >= 200 and curve.depth_mm.min() <= 100]
    curve = sorted(curves, key=lambda one: one.kind != "tpr")[0]
    at_10, at_20 = np.exp(np.interp((100.0, 200.0), curve.depth_mm, np.log(np.maximum(curve.value, 1e-9))))
    ratio = float(at_20 / at_10)
    tpr = ratio if curve.kind == "tpr" else 1.2661 * ratio - 0.0595  # IAEA TRS-398 (2000), section 6.3.1
    quality = tpr + QUALITY_OFFSET
    if not QUALITIES[0] <= quality <= QUALITIES[1]:
        raise ValueError(
            f"{measured.path}: {curve.name} has a TPR20,10 of {tpr:.3f}, expected {QUALITIES[0] - QUALITY_OFFSET:.3f} "
            f"to {QUALITIES[1] - QUALITY_OFFSET:.3f}"
        )
    return quality


def _solved(
    measured: Measurements, quality: float, scatter: float, penumbra_mm: float, name: str, sad_mm: float
) -> BeamModel:
    """Returns the beam with the best open fluence and depth correction for a kernel."""
    model = _kernel_model(quality, scatter, penumbra_mm, name, sad_mm)
    bare = model.depth_weights
    for _ in range(TURNS):  # the two hardly depend on each other
        model = _with_open_fluence(model, measured.of_kind("profile"))
        correction = _depth_correction(replace(model, depth_weights=bare), measured.of_kind("pdd", "tpr"))
        model = replace(model, depth_weights=bare * torch.from_numpy(correction))
    return model


def _kernel_model(quality: float, scatter: float, penumbra_mm: float, name: str, sad_mm: float) -> BeamModel:
    kernel = nyholm_kernels(quality, penumbra_mm, np.minimum(NODES_MM, NYHOLM_MAX_DEPTH_MM), scatter)
    sigma = np.hypot(SPREADS_MM, penumbra_mm)
    weights, kernels = leading_kernels(kernel, KERNELS)
    between = PchipInterpolator(NODES_MM, weights, axis=1)(DEPTHS_MM)
    mixture = fit_gaussians(kernels, sigma)
    tables = [torch.from_numpy(np.ascontiguousarray(part)) for part in (sigma, mixture, between)]
    return BeamModel(name, sad_mm, tables[0], tables[1], tables[2])


def _with_open_fluence(model: BeamModel, profiles: list[Curve]) -> BeamModel:
    """Fits the open fluence, linear between radii, to profiles inside their fields.

    With doses `a_j(x)` of the fluence at radius j alone, a profile m of unknown scale s gives the equations
    `sum_j h_j a_j(x) - s m(x) = 0`, where h = 1 on the axis.
    """
    reach_mm = max(curve.field_mm[0] / 2 for curve in profiles)
    radii = np.arange(0.0, reach_mm + RADIUS_STEP_MM / 2, RADIUS_STEP_MM)
    rows = []
    for number, curve in enumerate(profiles):
        at_isocentre = np.abs(curve.offset_mm) * model.sad_mm / (curve.ssd_mm + curve.depth_mm)
        inside = at_isocentre <= curve.field_mm[0] / 2 - INSIDE_MM
        basis = basis_dose(model, curve, radii)[:, inside]
        scale = np.zeros((len(profiles), inside.sum()))
        scale[number] = -curve.value[inside] / curve.value.max()
        rows.append(np.concatenate((basis / basis.sum(axis=0).max(), scale)).T / np.sqrt(max(1, inside.sum())))
    smooth = np.pad(SMOOTH * np.diff(np.eye(len(radii)), n=2, axis=0), ((0, 0), (0, len(profiles))))
    system = np.concatenate((*rows, smooth))
    others, *_ = np.linalg.lstsq(system[:, 1:], -system[:, 0], rcond=None)
    fluence = np.maximum(np.concatenate(([1.0], others[: len(radii) - 1])), 0.01)
    return replace(model, off_axis_mm=tuple(radii.tolist()), off_axis_fluence=tuple(fluence.tolist()))


def _depth_correction(model: BeamModel, curves: list[Curve]) -> Array:
    """Returns the factor on the dose at each depth, log-linear between knots, that fits depth doses.

    Each curve has its own scale. Beyond the deepest measurement the factor is constant.
    """
    last = max(float(curve.depth_mm.max()) for curve in curves)
    knots = KNOTS_MM[: int(np.searchsorted(KNOTS_MM, last)) + 1]
    hats = np.eye(len(knots))
    rows, logs = [], []
    for number, curve in enumerate(curves):
        own = curve.value > 0.05 * curve.value.max()
        ratio = np.log(curve.value[own] / curve_dose(model, curve)[own])
        at = np.stack([np.interp(curve.depth_mm[own], knots, hat) for hat in hats], axis=1)
        scale = np.zeros((len(at), len(curves)))
        scale[:, number] = 1.0
        rows.append(np.concatenate((at, scale), axis=1) / np.sqrt(len(at)))
        logs.append(ratio / np.sqrt(len(at)))
    smooth = np.pad(SMOOTH * np.diff(hats, n=2, axis=0), ((0, 0), (0, len(curves))))
    gauge = np.pad((knots == REFERENCE_DEPTH_MM).astype(float), (0, len(curves)))  # no correction there
    system = np.concatenate((*rows, smooth, gauge[None]))
    solution, *_ = np.linalg.lstsq(system, np.concatenate((*logs, np.zeros(len(smooth) + 1))), rcond=None)
    return np.asarray(np.exp(np.interp(DEPTHS_MM, knots, solution[: len(knots)])))


def _scaled(model: BeamModel, measured: Measurements) -> BeamModel:
    """Returns the model scaled to the measured dose per MU, or to 1 cGy per MU if none was measured."""
    if measured.dose_per_mu is None:
        return calibrate(model)
    field_mm, depth_mm, ssd_mm, value = measured.dose_per_mu
    dose = float(point_dose(model, field_mm, *(np.array([part]) for part in (ssd_mm, depth_mm, 0.0)))[0])
    return replace(model, depth_weights=model.depth_weights * (value / dose))
