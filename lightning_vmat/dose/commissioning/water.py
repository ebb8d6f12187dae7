"""Dose of a beam model at points in a water tank, by the model's formula without voxels."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vmat.dose.beam_model import CELL_MM, BeamModel
from lightning_vmat.dose.commissioning.measurements import REFERENCE_MM, SAME_MM, Curve

Array = NDArray[np.float64]


def curve_dose(model: BeamModel, curve: Curve) -> Array:
    """Returns the dose of 1 MU at each point of a curve, Gy."""
    dose = np.zeros(len(curve.value))
    for field_mm in np.unique(curve.field_mm):
        own = curve.field_mm == field_mm
        dose[own] = point_dose(model, float(field_mm), curve.ssd_mm[own], curve.depth_mm[own], curve.offset_mm[own])
    return dose


def point_dose(model: BeamModel, field_mm: float, ssd_mm: Array, depth_mm: Array, offset_mm: Array) -> Array:
    """Returns the dose of 1 MU of a square field at points in water, Gy.

    Args:
        model: the beam.
        field_mm: side of the field at the isocentre plane.
        ssd_mm: distance from source to water on the axis.
        depth_mm: depth below the surface, along the axis.
        offset_mm: distance from the axis, along x.
    """
    cells = torch.linspace(-field_mm / 2, field_mm / 2, 1 + math.ceil(field_mm / CELL_MM), dtype=torch.double)
    centres = (cells[1:] + cells[:-1]) / 2
    return _dose(model, model.open_fluence(centres, centres), cells, ssd_mm, depth_mm, offset_mm)


def basis_dose(model: BeamModel, curve: Curve, radii_mm: Array) -> Array:
    """Returns the dose at the points of a curve for an open fluence of 1 at one radius and 0 at the others.

    Returns:
        Doses [radius, point], Gy per MU; the dose of any open fluence is their sum weighted with it.
    """
    field_mm = float(curve.field_mm[0])
    cells = torch.linspace(-field_mm / 2, field_mm / 2, 1 + math.ceil(field_mm / CELL_MM), dtype=torch.double)
    centres = (cells[1:] + cells[:-1]) / 2
    radius = torch.hypot(centres, centres[:, None]).numpy()
    doses = []
    for place in np.eye(len(radii_mm)):
        fluence = torch.from_numpy(np.interp(radius, radii_mm, place))
        doses.append(_dose(model, fluence, cells, curve.ssd_mm, curve.depth_mm, curve.offset_mm))
    return np.stack(doses)


def _dose(
    model: BeamModel, fluence: torch.Tensor, cells: torch.Tensor, ssd_mm: Array, depth_mm: Array, offset_mm: Array
) -> Array:
    distance = ssd_mm + depth_mm
    magnification = model.sad_mm / distance
    along_ray = torch.from_numpy(depth_mm * np.sqrt(1 + (offset_mm / distance) ** 2))
    sigma = model.sigma_mm[:, None] * 2**0.5
    place = torch.from_numpy(offset_mm * magnification)
    across = torch.erf(cells / sigma).diff(dim=-1) / 2
    along = torch.erf((cells - place[:, None, None]) / sigma).diff(dim=-1) / 2  # [point, gaussian, cell]
    seen = torch.einsum("gy,yx,pgx->gp", across, fluence, along)
    per_kernel = model.mixture @ seen * model.weights(along_ray)
    return np.asarray(per_kernel.sum(dim=0).numpy() * magnification**2)


def relative(curve: Curve, dose: Array) -> tuple[Array, Array]:
    """Returns measured and computed values of a curve on one scale.

    Output factors are relative to the reference field. Computed profiles are relative to the axis, computed depth doses
    to the maximum; measured ones are scaled to agree best, because a single reference point would carry its own error.
    """
    if curve.kind == "output_factor":
        own = np.abs(curve.field_mm - REFERENCE_MM) <= SAME_MM
        return curve.value / curve.value[own].mean(), dose / dose[own].mean()
    computed = dose / (np.interp(0.0, curve.offset_mm, dose) if curve.kind == "profile" else dose.max())
    scale = float(curve.value @ computed / (curve.value @ curve.value))
    return curve.value * scale, computed
