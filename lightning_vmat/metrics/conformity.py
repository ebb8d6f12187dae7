"""Homogeneity and conformity of target dose."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.metrics.dvh import Dvh


def homogeneity_index(dvh: Dvh) -> float:
    """Returns `(D2 - D98) / D50`: 0 for uniform dose.

    Reference: ICRU report 83 (2010), eq. 3.9.1.
    """
    return (dvh.dose_at_volume(0.02) - dvh.dose_at_volume(0.98)) / max(dvh.dose_at_volume(0.50), 1e-9)


def paddick_index(
    dose_gy: Float[Tensor, " voxel"],
    in_target: Bool[Tensor, " voxel"],
    reference_gy: float,
    volume: Float[Tensor, " voxel"] | None = None,
) -> float:
    """Returns `TV_RI^2 / (TV RI)`: coverage times selectivity of an isodose; 1 if it is the target's surface.

    Args:
        dose_gy: dose of all body voxels.
        in_target: whether a voxel belongs to the target.
        reference_gy: the isodose, usually 95 % of the prescription.
        volume: volume that each voxel represents; equal volumes if None.

    Reference: Paddick, J Neurosurg 93 suppl. 3:219 (2000).
    """
    volume = torch.ones_like(dose_gy) if volume is None else volume
    inside = dose_gy >= reference_gy
    target, isodose = volume[in_target].sum().double(), volume[inside].sum().double()
    both = volume[in_target & inside].sum().double()
    return float(both.square() / (target * isodose).clamp(min=1e-12))
