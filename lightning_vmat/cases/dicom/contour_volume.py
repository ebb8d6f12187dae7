"""The volume enclosed by contours, measured independently of the CT's voxels, and the check of masks against it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.dicom.contour_slabs import Slab, runs, slabs
from lightning_vmat.cases.dicom.contours import fill_groups, slabs_mask
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.plan.volume import VolumeGrid

FINE = 128  # pixels along each side of the raster that measures areas
SAME = 0.03  # negligible relative difference of volumes
ENDS = 0.55  # part of a slice by which a run of slabs may be longer or shorter than its slices
MIN_THICKNESS = 1e-6


def roi_mask(roi: Roi, grid: VolumeGrid) -> tuple[NDArray[np.bool_], float]:
    """The voxels of a ROI, and the volume of its contours on the grid.

    Returns:
        Mask `[z, y, x]`, and volume in cc.

    Raises:
        ValueError: contours without an area, or a mask whose volume differs from that of the contours.
    """
    found = slabs(roi.contours, grid.spacing_mm[2], roi.exclusive)
    mask = slabs_mask(found, grid)
    return mask, checked_volume_cc(mask, found, grid)


def checked_volume_cc(mask: NDArray[np.bool_], found: list[Slab], grid: VolumeGrid) -> float:
    """The volume of slabs on a grid, checked against a mask.

    The count of voxels may differ by a slice at the ends of a run of slabs, and by half a pixel along its border.

    Raises:
        ValueError: a mask of another volume, or an empty mask although the slabs have the volume of a voxel or more.
    """
    own_cc = allowed_cc = 0.0
    for run in runs(found):
        volumes, errors = (np.array(values) for values in zip(*(_volume_and_error(s, grid) for s in run), strict=True))
        thickness = np.array([max(_thickness_mm(slab, grid), MIN_THICKNESS) for slab in run])
        own_cc += float(volumes.sum())
        ends_cc = ENDS * grid.spacing_mm[2] * float((volumes / thickness).max())
        allowed_cc += SAME * float(volumes.sum()) + float(errors.sum()) + ends_cc
    mask_cc = int(mask.sum()) * grid.voxel_volume_cc
    lost = mask_cc == 0 and own_cc > grid.voxel_volume_cc
    if lost or abs(mask_cc - own_cc) > allowed_cc:
        raise ValueError(f"{mask_cc:.2f} cc on the CT's voxels, expected the {own_cc:.2f} cc of its contours")
    return own_cc


def _volume_and_error(slab: Slab, grid: VolumeGrid) -> tuple[float, float]:
    """Volume of a slab on the grid, and largest error of counting its voxels, cc."""
    thickness = _thickness_mm(slab, grid)
    points = np.concatenate(slab.contours)[:, :2]
    first = np.array(grid.origin_mm[:2]) - np.array(grid.spacing_mm[:2]) / 2
    last = first + np.array(grid.spacing_mm[:2]) * np.array([grid.shape[2], grid.shape[1]])
    low, high = np.maximum(points.min(axis=0), first), np.minimum(points.max(axis=0), last)
    if thickness <= 0 or (high <= low).any():
        return 0.0, 0.0
    pixel = (high - low) / FINE
    fine = VolumeGrid((1, FINE, FINE), (*pixel.tolist(), 1.0), (*(low + pixel / 2).tolist(), 0.0))
    area = float(fill_groups(slab, fine).sum()) * float(pixel.prod())
    border = sum(np.hypot(*(np.roll(c[:, :2], -1, axis=0) - c[:, :2]).T).sum() for c in slab.contours)
    return area * thickness / 1000, 0.5 * float(border) * max(grid.spacing_mm[:2]) * thickness / 1000


def _thickness_mm(slab: Slab, grid: VolumeGrid) -> float:
    """Thickness of the part of a slab on the CT, from the face of the first slice to that of the last."""
    step, first = grid.spacing_mm[2], grid.origin_mm[2] - grid.spacing_mm[2] / 2
    return min(slab.high_mm, first + step * grid.shape[0]) - max(slab.low_mm, first)
