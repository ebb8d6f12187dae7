"""Volumes as NIfTI files. NIfTI axes are RAS, those of DICOM and of this package LPS: x and y change sign."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Shaped
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.plan.volume import VolumeGrid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ALIGNED = 1e-3  # largest off-axis part of a direction
SAME_MM = 1e-2


def write_volume(volume: Shaped[Tensor, "z y x"], grid: VolumeGrid, path: Path) -> None:
    """Write a volume: masks as uint8, whole CT numbers as int16, everything else as float32."""
    array = volume.detach().cpu().numpy().transpose(2, 1, 0)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif np.abs(array).max() < 2**15 and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    affine = np.diag([*grid.spacing_mm, 1.0])
    affine[:3, 3] = grid.origin_mm
    image = nib.Nifti1Image(array, LPS_TO_RAS @ affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def read_volume(path: Path) -> tuple[Shaped[Tensor, "z y x"], VolumeGrid]:
    """Read a volume in any axis-aligned orientation, as float32 [z, y, x] in LPS.

    Raises:
        ValueError: a file that is missing, truncated, not of real numbers, not three-dimensional, not aligned with the
            patient's axes, or with a voxel spacing that is not positive.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a NIfTI volume")
    try:
        with _silent_nibabel():
            image = nib.load(path)
        stored_mm = _stored_spacing(path, image)
        if (stored := image.get_data_dtype()).kind not in "biuf":
            raise ValueError(f"values of type {stored}, expected real numbers")
        array = np.asarray(image.dataobj, dtype=np.float32)
        affine = LPS_TO_RAS @ image.affine
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: not a readable NIfTI volume ({' '.join(str(error).split())})") from error
    if array.ndim != 3:
        raise ValueError(f"{path}: {array.ndim} axes, expected 3")
    steps_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    for spacing_mm in (stored_mm, steps_mm):
        if not all(0 < step < np.inf for step in spacing_mm):
            raise ValueError(f"{path}: voxel spacing {spacing_mm.tolist()} mm, expected three positive numbers")
    if not np.isfinite(affine).all():
        raise ValueError(f"{path}: affine {affine.tolist()}, expected finite numbers")
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("RAS"))  # affine is LPS, so "RAS" means +x, +y, +z
    affine = affine @ inv_ornt_aff(turn, array.shape)
    array = apply_orientation(array, turn)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0))), _grid(array.shape, affine, path)


def _stored_spacing(path: Path, image: Any) -> NDArray[np.float64]:
    """Spacing in the header. nibabel replaces a spacing that is not positive by a guess."""
    with ImageOpener(path) as file:
        header = type(image.header).from_fileobj(file, check=False)
    return np.asarray(header["pixdim"][1:4], dtype=np.float64)


@contextmanager
def _silent_nibabel() -> Iterator[None]:
    """Suppress what nibabel logs about headers that it repairs or refuses."""
    before, imageglobals.logger.disabled = imageglobals.logger.disabled, True
    try:
        yield
    finally:
        imageglobals.logger.disabled = before


def _grid(shape_xyz: tuple[int, ...], affine: NDArray[np.float64], path: Path) -> VolumeGrid:
    spacing = np.diag(affine)[:3]
    if np.abs(affine[:3, :3] - np.diag(spacing)).max() > ALIGNED * spacing.max():
        raise ValueError(f"{path}: oblique axes {affine[:3, :3].tolist()}, expected axes along the patient's")
    nx, ny, nz = shape_xyz
    sx, sy, sz = (round(float(s), 4) for s in spacing)
    ox, oy, oz = (round(float(o), 4) for o in affine[:3, 3])
    return VolumeGrid((nz, ny, nx), (sx, sy, sz), (ox, oy, oz))


def check_same_grid(grid: VolumeGrid, expected: VolumeGrid, path: Path) -> None:
    """Raise a ValueError that names the file if its grid is not the expected one."""
    numbers = np.subtract((*grid.spacing_mm, *grid.origin_mm), (*expected.spacing_mm, *expected.origin_mm))
    if grid.shape != expected.shape or np.abs(numbers).max() > SAME_MM:
        raise ValueError(f"{path}: voxels {grid}, expected those of the CT, {expected}")
