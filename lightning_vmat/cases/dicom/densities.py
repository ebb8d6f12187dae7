"""The CT for dose calculation: assigned densities, bolus and couch, and air around the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vmat.cases.dicom.contour_volume import roi_mask
from lightning_vmat.cases.dicom.ct import AIR_HU, CtSeries
from lightning_vmat.cases.dicom.roi_names import SUPPORT_TYPES
from lightning_vmat.cases.dicom.roi_report import AssignedDensity
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.dose.ray_tracing import hounsfield_units

Mask = NDArray[np.bool_]
ALL_OF_IT, OUTSIDE = "all of it", "outside the body"
SLIVER = 0.01  # allowed overlap, as a fraction of the smaller ROI: adjacent borders overlap a little
VIRTUAL_HU = -500.0  # a bolus with lower CT numbers was not in the scan


@dataclass(frozen=True)
class DenseCt:
    """CT numbers with assigned densities.

    Args:
        hu: CT numbers `[z, y, x]`, HU; air outside `kept`.
        kept: mask of body, support, bolus and all ROIs with an assigned density.
        densities: assigned densities.
    """

    hu: NDArray[np.float32]
    kept: Mask
    densities: tuple[AssignedDensity, ...]


def dense_ct(
    ct: CtSeries, body: Mask, outline: Roi | None, supports: Sequence[Roi], assigned: Sequence[Roi]
) -> DenseCt:
    """Give ROIs the CT number of their assigned density, and replace everything outside by air.

    The density of the outline is the background of all others. That of a support or bolus counts outside the body
    only. Two other ROIs of different densities must not overlap, since neither has priority.

    Args:
        ct: the scan.
        body: mask of the outline.
        outline: ROI of the outline; None if it was made automatically.
        supports: couch, bolus and similar ROIs.
        assigned: ROIs with an assigned density, in the order of the structure set.

    Raises:
        ValueError: contradictory ROIs, or a bolus that is neither in the scan nor has a density.
    """
    hu, kept = ct.hu.copy(), body.copy()
    taken: list[tuple[Roi, Mask]] = []
    report = []
    for roi in sorted(assigned, key=lambda one: one is not outline):
        around = roi is not outline and roi.interpreted_type in SUPPORT_TYPES
        mask = body if roi is outline else _mask(roi, ct)
        mask = mask & ~body if around else mask
        for other, its_mask in taken:
            _check_overlap(roi, mask, other, its_mask)
        if roi is not outline:
            taken.append((roi, mask))
        hu[mask] = float(hounsfield_units(torch.tensor(roi.density, dtype=torch.double)))
        kept |= mask
        report.append(AssignedDensity(roi.name, float(roi.density or 0.0), OUTSIDE if around else ALL_OF_IT))
    for roi in supports:
        if roi.density is None:
            mask = _mask(roi, ct) & ~body
            if roi.interpreted_type == "BOLUS" and mask.any() and float(np.median(ct.hu[mask])) < VIRTUAL_HU:
                raise ValueError(
                    f"bolus {roi.shown} lies in air of the CT, expected REL_ELEC_DENSITY in its properties"
                )
            kept |= mask
    return DenseCt(np.where(kept, hu, np.float32(AIR_HU)), kept, tuple(report))


def _check_overlap(roi: Roi, mask: Mask, other: Roi, its_mask: Mask) -> None:
    shared = int((mask & its_mask).sum())
    if roi.density != other.density and shared > SLIVER * min(int(mask.sum()), int(its_mask.sum())):
        raise ValueError(
            f"ROIs {other.shown} and {roi.shown} of relative electron density {other.density:g} and {roi.density:g} "
            "overlap, expected one density where they do"
        )


def _mask(roi: Roi, ct: CtSeries) -> Mask:
    try:
        return roi_mask(roi, ct.grid)[0]
    except ValueError as error:
        raise ValueError(f"ROI {roi.shown}: {error}") from error
