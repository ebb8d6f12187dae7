"""Reads RTDOSE files on the grid of a case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.ndimage import map_coordinates
from torch import Tensor

from lightning_vmat.cases.dicom.ct import image_axes
from lightning_vmat.cases.dicom.files import check_decoder, clear_errors, find_files, read_dataset, shown_word
from lightning_vmat.plan.volume import VolumeGrid

MOST_GY = 1000.0
EVEN_MM = 0.1
SUMS = ("PLAN", "BEAM")
HEADER_TAGS = ["DoseSummationType", "ReferencedRTPlanSequence", "ReferencedStructureSetSequence"]


@dataclass(frozen=True)
class DoseHeader:
    """The header of an RTDOSE: which plan and beams its dose belongs to.

    Args:
        path: path of the file.
        summation: `PLAN`, `BEAM`, `FRACTION`, ...
        plan_uid: SOP Instance UID of the referenced RTPLAN; empty if none.
        beams: numbers of the referenced beams of that plan.
        structure_set_uid: SOP Instance UID of the referenced RTSTRUCT; empty if none.
    """

    path: Path
    summation: str
    plan_uid: str
    beams: tuple[int, ...]
    structure_set_uid: str


def read_dose_header(path: Path) -> DoseHeader:
    """Read the header of an RTDOSE.

    Raises:
        ValueError: a broken file, or a dose of several plans.
    """
    data = read_dataset(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
    with clear_errors(path):
        plans = list(data.get("ReferencedRTPlanSequence") or [])
        if len({str(plan.get("ReferencedSOPInstanceUID", "")) for plan in plans}) > 1:
            raise ValueError(f"{path}: dose of {len(plans)} plans, expected one")
        groups = [group for plan in plans for group in plan.get("ReferencedFractionGroupSequence") or []]
        beams = [beam for group in groups for beam in group.get("ReferencedBeamSequence") or []]
        structures = list(data.get("ReferencedStructureSetSequence") or [])
        return DoseHeader(
            path=path,
            summation=str(data.get("DoseSummationType") or ""),
            plan_uid=str(plans[0].get("ReferencedSOPInstanceUID", "")) if plans else "",
            beams=tuple(int(beam.ReferencedBeamNumber) for beam in beams),
            structure_set_uid=str(structures[0].get("ReferencedSOPInstanceUID", "")) if structures else "",
        )


def dose_of_plan(folder: Path, plan_uid: str) -> Path | None:
    """Find the RTDOSE in a folder with the dose of a whole RTPLAN; None without one.

    Args:
        folder: folder to search, without subfolders.
        plan_uid: SOP Instance UID of the RTPLAN.

    Raises:
        ValueError: a broken file, or several such doses.
    """
    files = [file for path in sorted(folder.iterdir()) if path.is_file() for file in find_files(path)]
    doses = {file.uid: file.path for file in files if file.modality == "RTDOSE"}
    headers = [read_dose_header(path) for path in doses.values()]
    found = [header.path for header in headers if header.summation == "PLAN" and header.plan_uid == plan_uid]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: {len(found)} RTDOSE files of one plan ({names}), expected one")
    return found[0] if found else None


def read_rtdose(path: Path, grid: VolumeGrid) -> Float[Tensor, "z y x"]:
    """Physical dose of the whole course, Gy, of a plan or a beam, interpolated linearly; 0 outside its dose grid.

    Raises:
        ValueError: a broken file, a dose that is not physical or not in Gy, another dose summation, or tilted or
            uneven frames.
    """
    data = read_dataset(path)
    with clear_errors(path):
        _check_type(data, path)
        axes, position = image_axes(data, path)
        step = _frame_step_mm(data, axes[0], position, path)
        row_mm, column_mm = (float(value) for value in data.PixelSpacing)
        if not (0 < row_mm < np.inf and 0 < column_mm < np.inf):
            raise ValueError(f"{path}: pixels of {row_mm} x {column_mm} mm, expected positive numbers")
        dose = _pixels_gy(data, path)
        points = grid.centres_mm(torch.arange(grid.voxel_count)).double().numpy() - position
        places = points @ (axes / np.array([[step], [row_mm], [column_mm]])).T
        values = map_coordinates(dose, places.T, order=1, mode="grid-constant", cval=0.0, output=np.float32)
    return torch.from_numpy(values.reshape(grid.shape))


def _check_type(data: Dataset, path: Path) -> None:
    units, kind = str(data.get("DoseUnits") or ""), str(data.get("DoseType") or "")
    summed = str(data.get("DoseSummationType") or "")
    if units != "GY" or kind not in ("PHYSICAL", ""):
        found = f"{shown_word(kind)} dose in {shown_word(units)}"
        raise ValueError(f"{path}: {found}, expected a PHYSICAL one in GY; move it away to read the patient without")
    if summed not in SUMS:
        raise ValueError(
            f"{path}: dose summed over {shown_word(summed)}, expected {' or '.join(SUMS)}; move it away to read the "
            "patient without"
        )


def _frame_step_mm(data: Dataset, normal: NDArray[np.float64], position: NDArray[np.float64], path: Path) -> float:
    """Distance between frames along the normal, mm.

    Offsets that begin with 0 count along the normal. Others are z coordinates, begin with that of the position, and
    increase against a normal that points to the feet.

    Reference: DICOM PS3.3, C.8.8.3.2.
    """
    offsets = np.array([float(value) for value in np.atleast_1d(data.GridFrameOffsetVector)])
    if offsets[0] != 0:
        if abs(offsets[0] - position[2]) > EVEN_MM or abs(normal[2]) != 1:
            raise ValueError(
                f"{path}: frame offsets begin with {offsets[0]:g} mm, expected 0, or {position[2]:g} in axial frames"
            )
        offsets = (offsets - offsets[0]) * normal[2]
    step = float(offsets[-1]) / (len(offsets) - 1) if len(offsets) > 1 else 1.0
    if step == 0 or not np.abs(offsets - step * np.arange(len(offsets))).max() <= EVEN_MM:
        raise ValueError(f"{path}: frames at {offsets.tolist()[:5]}... mm, expected even spacing")
    return step


def _pixels_gy(data: Dataset, path: Path) -> NDArray[np.float64]:
    """Dose of each frame `[frame, row, column]`."""
    check_decoder(data, path)
    frames = np.size(data.GridFrameOffsetVector)
    stored = np.atleast_3d(data.pixel_array)
    scaling = float(data.DoseGridScaling)
    dose = (stored if frames > 1 else stored.reshape(1, *stored.shape[:2])) * scaling
    if dose.ndim != 3 or not len(dose) == frames == int(data.get("NumberOfFrames") or 1):
        raise ValueError(f"{path}: dose of shape {dose.shape}, expected {frames} frames")
    if not np.isfinite(dose).all() or dose.min() < 0 or dose.max() > MOST_GY:
        raise ValueError(f"{path}: dose of {dose.min():g} to {dose.max():g} Gy, expected 0 to {MOST_GY:g}")
    return np.asarray(dose)
