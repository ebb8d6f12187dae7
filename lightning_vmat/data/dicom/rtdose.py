"""An RTDOSE on the voxels of a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import map_coordinates
from torch import Tensor

from lightning_vmat.data.dicom.ct import image_axes
from lightning_vmat.data.dicom.files import check_decoder, clear_errors, looks_like_dicom, read_dataset, shown
from lightning_vmat.plan.volume import VolumeGrid

REFERENCE_TAGS = ["Modality", "DoseSummationType", "ReferencedRTPlanSequence"]
MOST_GY = 1000.0
EVEN_MM = 0.1


def summation_type(path: Path) -> str:
    """`PLAN`, `FRACTION`, `BEAM`, ... of an RTDOSE."""
    data = read_dataset(path, stop_before_pixels=True, specific_tags=["DoseSummationType"])
    with clear_errors(path):
        return str(data.get("DoseSummationType", ""))


def dose_of_plan(folder: Path, plan_uid: str) -> Path | None:
    """The RTDOSE in a folder that holds the dose of a whole RTPLAN; None without one.

    Args:
        folder: whose own files are looked at.
        plan_uid: SOP Instance UID of the RTPLAN.

    Raises:
        ValueError: a broken file, or several such doses.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if not looks_like_dicom(path):
            continue
        data = read_dataset(path, stop_before_pixels=True, specific_tags=REFERENCE_TAGS)
        with clear_errors(path):
            plans = [str(item.ReferencedSOPInstanceUID) for item in data.get("ReferencedRTPlanSequence") or []]
            whole = str(data.get("Modality", "")) == "RTDOSE" and str(data.get("DoseSummationType", "")) == "PLAN"
            if whole and plan_uid in plans:
                found.append(path)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: {len(found)} RTDOSE files of one plan ({names}), expected one")
    return found[0] if found else None


def read_rtdose(path: Path, grid: VolumeGrid) -> Float[Tensor, "z y x"]:
    """Dose of the whole course, interpolated linearly; 0 outside the file's dose grid.

    Raises:
        ValueError: a broken file, relative dose, a sum of something else than the plan, or tilted or uneven frames.
    """
    data = read_dataset(path)
    with clear_errors(path):
        units, summed = str(data.get("DoseUnits", "")), str(data.get("DoseSummationType", ""))
        if units != "GY" or summed != "PLAN":
            raise ValueError(
                f"{path}: dose in {shown(units) or 'no unit'}, summed over {shown(summed)}, expected GY and PLAN"
            )
        axes, position = image_axes(data, path)
        offsets = np.array([float(value) for value in data.GridFrameOffsetVector])
        if offsets[0] != 0:  # the other way to write them: coordinates
            offsets = offsets - offsets[0]
        step = float(offsets[-1]) / (len(offsets) - 1) if len(offsets) > 1 else 1.0
        if step == 0 or np.abs(offsets - step * np.arange(len(offsets))).max() > EVEN_MM:
            raise ValueError(f"{path}: frames at {offsets.tolist()[:5]}... mm, expected even spacing")
        row_mm, column_mm = (float(value) for value in data.PixelSpacing)
        check_decoder(data, path)
        stored = np.atleast_3d(data.pixel_array)
        dose = (stored if len(offsets) > 1 else stored.reshape(1, *stored.shape[:2])) * float(data.DoseGridScaling)
        if dose.ndim != 3 or len(dose) != len(offsets):
            raise ValueError(f"{path}: dose of shape {dose.shape}, expected {len(offsets)} frames")
        if not np.isfinite(dose).all() or dose.min() < 0 or dose.max() > MOST_GY:
            raise ValueError(f"{path}: dose of {dose.min():g} to {dose.max():g} Gy, expected 0 to {MOST_GY:g}")
        points = grid.centres_mm(torch.arange(grid.voxel_count)).double().numpy() - position
        places = points @ (axes / np.array([[step], [row_mm], [column_mm]])).T
        values = map_coordinates(dose, places.T, order=1, mode="grid-constant", cval=0.0, output=np.float32)
    return torch.from_numpy(values.reshape(grid.shape))
