"""The CT of a matRad patient: CT numbers along the patient's axes, and where its voxels are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_vmat.cases.dicom.ct import AIR_HU, EVEN_MM
from lightning_vmat.cases.dicom.dicom_references import PRONE
from lightning_vmat.cases.matrad.mat_files import records
from lightning_vmat.dose.ray_tracing import hounsfield_units
from lightning_vmat.plan.case import MAX_HU
from lightning_vmat.plan.volume import VolumeGrid

MAX_DENSITY = 20.0  # relative electron density; osmium has 17
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # rows, columns and slices along x, y, z


@dataclass(frozen=True)
class MatradCt:
    """A CT.

    Args:
        hu: CT numbers `[z, y, x]`.
        grid: its voxels, patient LPS.
        patient_position: how the patient lies; `HFS` where the file does not say.
        scenarios: number of CTs of the file, of which this is the first.
    """

    hu: NDArray[np.float32]
    grid: VolumeGrid
    patient_position: str
    scenarios: int


def read_ct(stored: Any) -> MatradCt:
    """The CT from matRad's or pyRadPlan's `ct`.

    matRad's cubes are `[y, x, z]`, their axes those of DICOM LPS. `cubeHU` counts before `cube`, which holds relative
    electron densities. Coordinates are those of `x`, `y` and `z`; without these the first voxel is at
    `dicomInfo.ImagePositionPatient`, else at minus half the size of the cube, as `matRad_getWorldAxes` places it.

    Raises:
        ValueError: the field that is missing or contradicts another.
    """
    if not isinstance(stored, Mapping):
        raise ValueError(f"ct is a {type(stored).__name__}, expected a struct with cubeHU or cube, and resolution")
    spacing_mm = _spacing(stored)
    cube, scenarios = _cube(stored)
    ny, nx, nz = cube.shape
    _check_orientation(stored)
    origin_mm = _origin(stored, (nx, ny, nz), spacing_mm)
    position = _info(stored).get("PatientPosition", "HFS")
    if position not in PRONE:
        raise ValueError(f"ct.dicomInfo.PatientPosition is not one of {', '.join(PRONE)}")
    hu = np.ascontiguousarray(cube.transpose(2, 0, 1)).clip(AIR_HU, MAX_HU)
    return MatradCt(hu, VolumeGrid((nz, ny, nx), spacing_mm, origin_mm), position, scenarios)


def number(value: Any, name: str) -> float:
    """A finite number.

    Raises:
        ValueError: something else, by name.
    """
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(value).__name__}, expected a number") from error
    if found.size != 1 or not np.isfinite(found).all():
        raise ValueError(f"{name} is {found.ravel()[:4].tolist()}, expected one finite number")
    return float(found.ravel()[0])


def numbers(value: Any, name: str) -> NDArray[np.float64]:
    """Some finite numbers, in one row.

    Raises:
        ValueError: something else, by name.
    """
    try:
        found = np.asarray(value, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a {type(value).__name__}, expected numbers") from error
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds NaN or infinite numbers")
    return found


def _spacing(stored: Mapping[str, Any]) -> tuple[float, float, float]:
    resolution = stored.get("resolution")
    if not isinstance(resolution, Mapping) or not set("xyz") <= resolution.keys():
        raise ValueError("ct.resolution is missing or not complete, expected x, y and z in mm")
    x, y, z = (number(resolution[axis], f"ct.resolution.{axis}") for axis in "xyz")
    if min(x, y, z) <= 0:
        raise ValueError(f"ct.resolution is {x:g} x {y:g} x {z:g} mm, expected positive numbers")
    return x, y, z


def _cube(stored: Mapping[str, Any]) -> tuple[NDArray[np.float32], int]:
    """CT numbers `[y, x, z]` of the first scenario, and how many there are."""
    name = next((name for name in ("cubeHU", "cube") if records(stored.get(name))), None)
    if name is None:
        raise ValueError("ct has neither cubeHU nor cube, expected CT numbers or relative electron densities")
    cubes = records(stored[name])
    try:
        cube = np.asarray(cubes[0], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"ct.{name} is a {type(cubes[0]).__name__}, expected an array of numbers") from error
    cube = _shaped(cube, stored, name)
    if not np.isfinite(cube).all():
        raise ValueError(f"ct.{name} holds NaN or infinite values")
    low, high = float(cube.min()), float(cube.max())
    if name == "cube":
        if low < 0 or high > MAX_DENSITY:
            raise ValueError(f"ct.cube of {low:g} to {high:g}, expected electron densities of 0 to {MAX_DENSITY:g}")
        return hounsfield_units(torch.from_numpy(cube).double()).float().numpy(), len(cubes)
    if low >= 0 and 0 < high <= MAX_DENSITY:
        raise ValueError(f"ct.cubeHU of {low:g} to {high:g}, expected CT numbers: these may be relative densities")
    return cube, len(cubes)


def _shaped(cube: NDArray[np.float32], stored: Mapping[str, Any], name: str) -> NDArray[np.float32]:
    """A cube in its three axes; `cubeDim` must say the same, in the order y, x, z."""
    given = records(stored.get("cubeDim"))
    if not given:
        if cube.ndim != 3:
            raise ValueError(f"ct.{name} of shape {cube.shape}, and no ct.cubeDim, expected three axes")
        return cube
    lengths = numbers(given[0], "ct.cubeDim")
    ny, nx, nz = (int(length) for length in lengths) if len(lengths) == 3 else (0, 0, 0)
    if cube.shape == (ny, nx, nz):
        return cube
    if cube.shape == tuple(length for length in (ny, nx, nz) if length != 1) and cube.ndim < 3:
        return cube.reshape(ny, nx, nz)  # readers drop axes of one voxel
    as_pyradplan = cube.shape == (nx, ny, nz) and all(
        abs(len(_axis(stored, a)) - n) <= 1 for a, n in (("x", ny), ("y", nx))
    )
    if as_pyradplan:  # it writes the cube as matRad does, but its lengths along x, y, z
        return cube
    raise ValueError(f"ct.{name} of shape {cube.shape}, expected ct.cubeDim {lengths.tolist()}")


def _axis(stored: Mapping[str, Any], axis: str) -> NDArray[np.float64]:
    return numbers(found[0], f"ct.{axis}") if (found := records(stored.get(axis))) else np.empty(0)


def _info(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    info = stored.get("dicomInfo")
    return info if isinstance(info, Mapping) else {}


def _check_orientation(stored: Mapping[str, Any]) -> None:
    """Raise a ValueError where rows, columns or slices do not run along x, y, z."""
    for name, value in (
        ("ct.dicomInfo.ImageOrientationPatient", _info(stored).get("ImageOrientationPatient")),
        ("ct.direction", stored.get("direction")),
    ):
        for given in records(value):
            cosines = numbers(given, name)
            if len(cosines) not in (6, 9) or np.abs(cosines - UPRIGHT[: len(cosines)]).max() > 1e-3:
                raise ValueError(
                    f"{name} is {cosines.tolist()}, expected rows along x, columns along y, slices along z"
                )


def _origin(
    stored: Mapping[str, Any], counts: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Centre of the first voxel."""
    axes = [_axis(stored, axis) for axis in "xyz"]
    if any(map(len, axes)):
        first = [_first(*one) for one in zip("xyz", axes, counts, spacing_mm, strict=True)]
    elif given := records(_info(stored).get("ImagePositionPatient")) or records(stored.get("origin")):
        first = numbers(given if len(given) > 1 else given[0], "ct: position of the first voxel").tolist()
    else:
        first = [-count / 2 * spacing for count, spacing in zip(counts, spacing_mm, strict=True)]
    if len(first) != 3:
        raise ValueError(f"ct: position of the first voxel is {first}, expected three numbers")
    x, y, z = (round(value, 4) for value in first)
    return x, y, z


def _first(axis: str, places: NDArray[np.float64], count: int, spacing_mm: float) -> float:
    """The first of evenly spaced, ascending coordinates; pyRadPlan rounds to one too many at times."""
    name = f"ct.{axis}"
    if len(places) not in (count, count + 1):
        raise ValueError(f"{name} holds {len(places)} coordinates, expected {count}, one for each voxel")
    if (off := np.abs(places - places[0] - spacing_mm * np.arange(len(places)))).max() > EVEN_MM:
        at = int(off.argmax())
        raise ValueError(
            f"{name} from {places[0]:g} to {places[-1]:g} mm is {places[at]:g} mm at voxel {at + 1}, expected even, "
            f"ascending steps of {spacing_mm:g} mm as in ct.resolution"
        )
    return float(places[0])
