"""The patient's outline from the CT, for structure sets without one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label, maximum_filter1d, minimum_filter1d

from lightning_vmat.plan.volume import VolumeGrid

THRESHOLD_HU = -300.0  # below: air and lung; above: fat and other tissue
THIN_MM = 10.0  # thinner parts are a couch top, a mask or a sheet


def automatic_body(hu: NDArray[np.float32], grid: VolumeGrid) -> NDArray[np.bool_]:
    """The largest connected part of the CT above -300 HU, filled slice by slice.

    Thin layers are removed before the parts are separated, so that a couch top in contact with the patient stays
    outside. Lungs and gas inside are filled.

    Raises:
        ValueError: a CT of air only.
    """
    dense = hu > THRESHOLD_HU
    core = dense
    for axis in (1, 2):
        core = minimum_filter1d(core, _width(grid, axis), axis=axis, mode="nearest")
    parts, count = label(core)
    if count == 0:
        raise ValueError(f"no ROI for Body, and no tissue above {THRESHOLD_HU:g} HU in the CT, expected a patient")
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    for axis in (1, 2):
        largest = maximum_filter1d(largest, _width(grid, axis) + 2, axis=axis, mode="nearest")
    return np.stack([binary_fill_holes(image) for image in dense & largest])


def _width(grid: VolumeGrid, axis: int) -> int:
    """Number of voxels of a layer along an axis that is not thin; odd."""
    return 2 * max(1, round(THIN_MM / 2 / grid.spacing_mm[2 - axis])) + 1
