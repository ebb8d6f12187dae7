"""A CT series as one volume along the patient's axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from lightning_vmat.cases.dicom.files import DicomFile, check_decoder, clear_errors, read_dataset, shown
from lightning_vmat.plan.case import MAX_HU
from lightning_vmat.plan.volume import VolumeGrid

ALIGNED = 1e-3  # largest off-axis part of a direction
EVEN_MM = 0.1  # largest distance of a slice from where even spacing would put it
MIN_SLICES = 2
AIR_HU = -1000.0
UNSPECIFIED = "US"  # as written by some archives that compress images
MOST_AIR_HU = -800.0  # a CT in Hounsfield units has air below this
OTHER_IMAGES = (  # values of Image Type whose pixels are not Hounsfield units (PS3.3, C.8.15.3.1 and C.8.2.1.1)
    "ELECTRON_DENSITY",
    "EFF_ATOMIC_NUM",
    "MAT_SPECIFIC",
    "MAT_FRACTIONAL",
    "MAT_VALUE_BASED",
)


@dataclass(frozen=True)
class CtSeries:
    """A CT series.

    Args:
        hu: CT numbers `[z, y, x]`.
        grid: grid of the voxels.
        uid: Series Instance UID.
        frame_of_reference_uid: Frame of Reference UID of the coordinates.
        first: dataset of one slice without pixels, for patient and study attributes.
    """

    hu: NDArray[np.float32]
    grid: VolumeGrid
    uid: str
    frame_of_reference_uid: str
    first: Dataset

    def check_air(self) -> None:
        """Raise if a CT of unspecified unit (Rescale Type US) has no air at the CT number of air.

        Raises:
            ValueError: another unit, or a scan without air.
        """
        if str(self.first.get("RescaleType") or "HU").strip().upper() == UNSPECIFIED and self.hu.min() > MOST_AIR_HU:
            raise ValueError(f"CT of unspecified unit (Rescale Type US) from {self.hu.min():.0f}, expected HU with air")


def choose_series(
    files: list[DicomFile], series_uids: Sequence[str], frame_uids: Sequence[str], folder: Path
) -> list[DicomFile]:
    """The slices that a structure set was drawn on: the series that it names, else the only one in its coordinates.

    Args:
        files: files of the patient.
        series_uids: series that the structure set names, possibly also of other images.
        frame_uids: frames of reference that it names; any frame if empty.
        folder: folder of the patient, for messages.

    Raises:
        ValueError: no such CT, or several.
    """
    slices = [file for file in files if file.modality == "CT" and not file.is_localizer]
    named = [file for file in slices if file.series_uid in series_uids]
    near = named or [file for file in slices if not frame_uids or file.frame_of_reference_uid in ("", *frame_uids)]
    series = {file.series_uid for file in near}
    if not near:
        raise ValueError(f"{folder}: {len(slices)} CT slices, none in the structure set's frame, expected one series")
    if len(series) > 1:
        which = "that the structure set names" if named else "in the structure set's frame of reference"
        raise ValueError(f"{folder}: {len(series)} CT series {which}, expected one")
    return near


def read_ct(files: list[DicomFile]) -> CtSeries:
    """Read the slices of one series, in any order, as a volume [z, y, x] in LPS.

    Raises:
        ValueError: slices that are broken, oblique, of different geometry, missing, doubled or unevenly spaced.
    """
    slices = [_read_slice(file.path) for file in {file.uid: file for file in files}.values()]
    if len(slices) < MIN_SLICES:
        raise ValueError(f"{files[0].path}: {len(slices)} CT slice, expected at least {MIN_SLICES}")
    axes = slices[0].axes
    for one in slices:
        if not np.allclose(one.axes, axes, atol=ALIGNED) or one.pixels.shape != slices[0].pixels.shape:
            raise ValueError(f"{one.path}: other orientation or size than {slices[0].path}, expected one series")
        if not np.allclose(one.spacing_mm, slices[0].spacing_mm, rtol=1e-3):
            raise ValueError(f"{one.path}: pixels of {one.spacing_mm} mm, expected {slices[0].spacing_mm} mm")
    slices.sort(key=lambda one: float(one.position_mm @ axes[0]))
    step_mm = _even_step(slices)
    volume = np.stack([one.pixels for one in slices])
    spacing = np.array([step_mm, slices[0].spacing_mm[0], slices[0].spacing_mm[1]])  # slice, row, column
    hu, grid = _along_patient_axes(volume, axes, spacing, slices[0].position_mm)
    first = read_dataset(slices[0].path, stop_before_pixels=True)
    frame_uid = str(first.get("FrameOfReferenceUID", ""))
    return CtSeries(hu, grid, files[0].series_uid, frame_uid, first)


@dataclass(frozen=True)
class _Slice:
    """One slice. The axes are unit vectors of increasing slice, row and column index in LPS."""

    path: Path
    pixels: NDArray[np.float32]
    axes: NDArray[np.float64]
    position_mm: NDArray[np.float64]
    spacing_mm: tuple[float, float]


def _read_slice(path: Path) -> _Slice:
    data = read_dataset(path)
    with clear_errors(path):
        if int(data.get("NumberOfFrames") or 1) > 1:
            raise ValueError(f"{path}: {data.NumberOfFrames} frames, expected one file for each slice")
        axes, position = image_axes(data, path)
        row_mm, column_mm = (float(value) for value in data.PixelSpacing)
        if not (0 < row_mm < np.inf and 0 < column_mm < np.inf):
            raise ValueError(f"{path}: pixels of {row_mm} x {column_mm} mm, expected positive numbers")
        _check_hounsfield(data, path)
        check_decoder(data, path)
        hu = np.asarray(apply_modality_lut(data.pixel_array, data), dtype=np.float32)
        if hu.ndim != 2 or not np.isfinite(hu).all():
            raise ValueError(f"{path}: pixels of shape {hu.shape} or not finite, expected a grey image")
    return _Slice(path, hu.clip(AIR_HU, MAX_HU), axes, position, (row_mm, column_mm))


def _check_hounsfield(data: Dataset, path: Path) -> None:
    """Raise a ValueError if pixel values are rescaled to something other than CT numbers (PS3.3, C.11.1.1.2)."""
    tables = data.get("ModalityLUTSequence") or []
    units = [table.get("ModalityLUTType") for table in tables] or [data.get("RescaleType")]
    for unit in (str(unit or "HU").strip().upper() for unit in units):
        if unit not in ("HU", UNSPECIFIED):
            raise ValueError(f"{path}: CT whose pixels are rescaled to {shown(unit)}, expected HU")
    if others := [str(word) for word in (data.get("ImageType") or ())[2:] if str(word).upper() in OTHER_IMAGES]:
        raise ValueError(f"{path}: CT image of type {others[0]}, expected one of Hounsfield units")
    slope = data.get("RescaleSlope")
    if not tables and slope is not None and not 0 < float(slope) < np.inf:
        raise ValueError(f"{path}: rescale slope {float(slope):g}, expected a positive number")


def image_axes(data: Dataset, path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of slices, rows and columns of an image in LPS, and the centre of its first pixel, mm.

    Raises:
        ValueError: an image that is tilted against the patient's axes.
    """
    cosines = np.array([float(value) for value in data.ImageOrientationPatient])
    position = np.array([float(value) for value in data.ImagePositionPatient])
    if cosines.shape != (6,) or position.shape != (3,) or not np.isfinite([*cosines, *position]).all():
        raise ValueError(f"{path}: image position {position} and orientation {cosines}, expected 3 and 6 numbers")
    along_row, along_column = cosines[:3], cosines[3:]  # of increasing column index, of increasing row index
    axes = np.stack((np.cross(along_row, along_column), along_column, along_row))
    nearest = np.rint(axes)
    if np.abs(axes - nearest).max() > ALIGNED or abs(np.linalg.det(nearest)) != 1:
        raise ValueError(f"{path}: image orientation {cosines.tolist()}, expected axes along the patient's (no tilt)")
    return nearest, position


def _even_step(slices: list[_Slice]) -> float:
    """Distance between slices, mm.

    Raises:
        ValueError: slices that are doubled, missing, unevenly spaced or shifted sideways.
    """
    normal = slices[0].axes[0]
    places = np.array([one.position_mm for one in slices])
    along = places @ normal
    steps = np.diff(along)
    aside = np.abs((places - places[0]) - np.outer(along - along[0], normal)).max()
    first, last = slices[0].path, slices[-1].path.name
    if steps.min() < EVEN_MM:
        k = int(steps.argmin())
        raise ValueError(
            f"{slices[k].path} and {slices[k + 1].path.name}: two different slices at one position, "
            f"{_position(slices[k])}, expected one scan"
        )
    step = float(along[-1] - along[0]) / len(steps)
    if aside > EVEN_MM:
        raise ValueError(f"{first} to {last}: slices shifted sideways by {aside:.2f} mm, expected no gantry tilt")
    if np.abs(along - along[0] - step * np.arange(len(along))).max() > EVEN_MM:
        raise ValueError(f"{first} to {last}: {_unevenness(slices, steps)}, expected even spacing")
    return step


def _unevenness(slices: list[_Slice], steps_mm: NDArray[np.float64]) -> str:
    """Which slices are missing; else the two neighbours whose distance differs most from the usual one."""
    usual_mm = float(np.median(steps_mm))
    counts = np.rint(steps_mm / usual_mm)
    gaps = np.flatnonzero((counts > 1) & (np.abs(steps_mm - counts * usual_mm) <= EVEN_MM))
    if len(gaps):
        k, missing = int(gaps[0]), int((counts[gaps] - 1).sum())
        number = "1 slice is" if missing == 1 else f"{missing} slices are"
        where = f"between {_position(slices[k])} and {_position(slices[k + 1])}"
        return f"{number} missing, {'the first ' if len(gaps) > 1 else ''}{where}"
    k = int(np.abs(steps_mm - usual_mm).argmax())
    return (
        f"slices at {_position(slices[k])} and {_position(slices[k + 1])} are {steps_mm[k]:.2f} mm apart, most slices "
        f"{usual_mm:.2f} mm"
    )


def _position(one: _Slice) -> str:
    """Where a slice lies along the patient's axis across it, such as `z = 6.00 mm`."""
    axis = int(np.abs(one.axes[0]).argmax())
    return f"{'xyz'[axis]} = {one.position_mm[axis]:.2f} mm"


def _along_patient_axes(
    volume: NDArray[np.float32],
    axes: NDArray[np.float64],
    spacing_mm: NDArray[np.float64],
    position_mm: NDArray[np.float64],
) -> tuple[NDArray[np.float32], VolumeGrid]:
    """Permute and flip [slice, row, column] to ascending [z, y, x]."""
    order = [int(np.abs(axes[:, patient_axis]).argmax()) for patient_axis in (2, 1, 0)]
    origin = position_mm.copy()
    for patient_axis, index in zip((2, 1, 0), order, strict=True):
        if axes[index, patient_axis] < 0:
            volume = np.flip(volume, axis=index)
            origin[patient_axis] -= spacing_mm[index] * (volume.shape[index] - 1)
    sz, sy, sx = (round(float(spacing_mm[index]), 6) for index in order)
    ox, oy, oz = (round(float(value), 4) for value in origin)
    turned = np.ascontiguousarray(volume.transpose(order))
    nz, ny, nx = turned.shape
    return turned, VolumeGrid((nz, ny, nx), (sx, sy, sz), (ox, oy, oz))
