"""The patient's outline from the CT, where a structure set has none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

from lightning_vmat.plan.volume import VolumeGrid

THRESHOLD_HU = -300.0  # between air and lung on one side, fat on the other
THIN_MM = 10.0  # what is thinner across the patient is a couch top, a mask or a sheet


def automatic_body(hu: NDArray[np.float32], grid: VolumeGrid) -> NDArray[np.bool_]:
    """The largest connected part of the CT above -300 HU, filled slice by slice.

    Thin layers are taken off before parts are told apart, so that a couch top that the patient lies on stays outside;
    lungs and gas inside are filled.

    Raises:
        ValueError: nothing but air.
    """
    dense = hu > THRESHOLD_HU
    pixel_mm = (grid.spacing_mm[1], grid.spacing_mm[0])
    core = np.stack([distance_transform_edt(image, sampling=pixel_mm) > THIN_MM / 2 for image in dense])
    parts, count = label(core)
    if count == 0:
        raise ValueError(f"no ROI for Body, and no tissue above {THRESHOLD_HU:g} HU in the CT, expected a patient")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    reach_mm = THIN_MM / 2 + max(pixel_mm)
    grown = [
        distance_transform_edt(~image, sampling=pixel_mm) <= reach_mm if image.any() else image for image in largest
    ]
    return np.stack([binary_fill_holes(image & near) for image, near in zip(dense, grown, strict=True)])
