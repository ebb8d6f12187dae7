"""Head-and-neck patients of the OpenKBP challenge, from its folders of sparse CSV files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.cases.drawn_wishes import draw_wishes, name_seed
from lightning_vmat.cases.sizes import Size, get_size
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.objectives.wishes import drawn_names
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid, fit_beamlet_grid
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.machine import load_machine
from lightning_vmat.plan.volume import VolumeGrid

MACHINE, PROTOCOL, FRACTIONS = "truebeam_millennium120", "head_and_neck_70gy_35fx", 35
PRESCRIPTION_GY = {"PTV70": 70.0, "PTV63": 63.0, "PTV56": 56.0}
ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
SIDE = 128  # voxels along each axis of the challenge's arrays
AIR_HU, STORED_MAX, CLIPPED_HU = -1000.0, 32000.0, 3095.0  # a stored number is HU + 1000; most patients end at 4095
SPLITS = {"train": "train-pats", "validation": "validation-pats", "test": "test-pats"}


def patient_folders(root: Path, split: str) -> list[Path]:
    """Folders of the patients of one split, by number.

    Raises:
        ValueError: an unknown split, or a folder without the layout of the challenge.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = Path(root) / SPLITS[split]
    patients = [path for path in folder.glob("pt_*") if path.name[3:].isdigit()]
    if not patients:
        raise ValueError(f"{folder}: no patients (pt_1, pt_2, ...), expected the layout of OpenKBP")
    return sorted(patients, key=lambda path: int(path.name[3:]))


def read_open_kbp(folder: Path, size: str = "base") -> tuple[Case, Float[Tensor, "z y x"]]:
    """Read one patient, cropped to the CT outside air, with two full arcs of opposite direction.

    Args:
        folder: folder of the patient, `pt_<number>`.
        size: name of a size: control points and beamlets. The voxels stay as they are.

    Returns:
        The case, and the dose of the clinical plan on its grid, in Gy.

    Raises:
        ValueError: one line that names the file and what is wrong with it.

    Reference: Babier et al., Medical Physics 48:5549 (2021).
    """
    folder, cut = Path(folder), get_size(size)
    spacing_mm = _spacing(folder / "voxel_dimensions.csv")
    stored = _volume(folder / "ct.csv")
    if not np.isfinite(stored).all() or stored.min() < 0 or stored.max() > STORED_MAX:
        raise ValueError(f"{folder / 'ct.csv'}: CT of {stored.min()} to {stored.max()}, expected 0 to {STORED_MAX}")
    body = _mask(folder / "possible_dose_mask.csv")
    structures = {name: _mask(folder / f"{name}.csv") for name in (*PRESCRIPTION_GY, *ORGANS) if _has(folder, name)}
    prescription_gy = {name: dose for name, dose in PRESCRIPTION_GY.items() if name in structures}
    _check_targets(folder, prescription_gy, structures, stored)
    dose_gy = _volume(folder / "dose.csv")
    if not np.isfinite(dose_gy).all() or dose_gy.min() < 0:
        raise ValueError(f"{folder / 'dose.csv'}: NaN, infinite or negative dose, expected Gy")

    box = _bounding_box((stored > 0) | body)
    grid = _grid(box, spacing_mm)
    masks = {name: torch.from_numpy(mask[box].copy()) for name, mask in {BODY: body, **structures}.items()}
    hu = np.minimum(stored[box] + np.float32(AIR_HU), np.float32(CLIPPED_HU))
    targets = torch.stack([masks[name] for name in prescription_gy]).any(dim=0)
    arcs, isocentre_mm, beamlets = _beams(targets, grid, cut, folder)
    case = Case(
        case_id=folder.name,
        source="open-kbp",
        grid=grid,
        hu=torch.from_numpy(hu),
        structures=masks,
        prescription_gy=prescription_gy,
        fractions=FRACTIONS,
        isocentre_mm=isocentre_mm,
        arcs=arcs,
        beamlets=beamlets,
        machine_name=MACHINE,
        protocol=PROTOCOL,
    )
    return case, torch.from_numpy(dose_gy[box].copy())


def _has(folder: Path, name: str) -> bool:
    return (folder / f"{name}.csv").is_file()


def _spacing(path: Path) -> tuple[float, float, float]:
    """Voxel spacing (x, y, z), mm; the file lists y, x, z."""
    values = _table(path, columns=(0,), header_lines=0)[:, 0]
    if len(values) != 3 or not all(0 < value < math.inf for value in values):
        raise ValueError(f"{path}: voxel spacing {values.tolist()} mm, expected three positive numbers")
    y, x, z = (round(float(value), 4) for value in values)
    return x, y, z


def _table(path: Path, columns: tuple[int, ...], header_lines: int = 1) -> NDArray[np.float64]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected the layout of OpenKBP")
    try:
        text = path.read_text()
        if not text.endswith("\n"):
            raise ValueError("its last line is cut off")
        lines = text.splitlines()[header_lines:]
        table = np.loadtxt(lines, delimiter=",", usecols=columns, ndmin=2) if lines else np.zeros((0, len(columns)))
    except ValueError as error:
        raise ValueError(f"{path}: not a readable CSV file ({' '.join(str(error).split())})") from error
    return table


def _volume(path: Path, columns: tuple[int, ...] = (0, 1)) -> NDArray[np.float32]:
    """Volume [z, y, x] of sparse (index, value) lines. The file's axes are y, x, and z from superior to inferior."""
    table = _table(path, columns)
    index = table[:, 0]
    if len(index) == 0:
        raise ValueError(f"{path}: no voxels, expected at least one")
    if not (index == np.rint(index)).all() or index.min() < 0 or index.max() >= SIDE**3:
        span = f"{index.min():g} to {index.max():g}"
        raise ValueError(f"{path}: voxel indices {span}, expected whole numbers from 0 to {SIDE**3 - 1}")
    volume = np.zeros(SIDE**3, np.float32)
    volume[index.astype(np.int64)] = table[:, 1] if len(columns) == 2 else 1.0
    return np.ascontiguousarray(volume.reshape(SIDE, SIDE, SIDE).transpose(2, 0, 1)[::-1])


def _mask(path: Path) -> NDArray[np.bool_]:
    return _volume(path, columns=(0,)) > 0


def _check_targets(
    folder: Path,
    prescription_gy: dict[str, float],
    structures: dict[str, NDArray[np.bool_]],
    stored: NDArray[np.float32],
) -> None:
    if not prescription_gy:
        raise ValueError(f"{folder}: no target, expected at least one of {', '.join(PRESCRIPTION_GY)} (.csv)")
    for name in prescription_gy:
        inside = float((stored[structures[name]] > 0).mean())
        if inside < 0.5:
            raise ValueError(
                f"{folder / name}.csv: {1 - inside:.0%} of the target lies outside the CT, expected half at most"
            )


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Smallest box around the mask, with a margin of one voxel where the volume has it."""
    index = np.argwhere(mask)
    low, high = np.maximum(index.min(axis=0) - 1, 0), index.max(axis=0) + 2
    z, y, x = (slice(int(a), min(int(b), SIDE)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _grid(box: tuple[slice, slice, slice], spacing_mm: tuple[float, float, float]) -> VolumeGrid:
    """Patient coordinates with their origin at the centre of the challenge's array."""
    nz, ny, nx = (part.stop - part.start for part in box)
    x, y, z = (
        round(step * (part.start - (SIDE - 1) / 2), 4) for step, part in zip(spacing_mm, reversed(box), strict=True)
    )
    return VolumeGrid((nz, ny, nx), spacing_mm, (x, y, z))


def _beams(
    targets: Bool[Tensor, "z y x"], grid: VolumeGrid, size: Size, folder: Path
) -> tuple[tuple[Arc, ...], tuple[float, float, float], BeamletGrid]:
    """Two arcs about the centre of the targets, and beamlets that cover the targets."""
    points_mm = grid.centres_mm(targets.flatten().nonzero()[:, 0])
    x, y, z = (round(float(value), 1) for value in (points_mm.amin(dim=0) + points_mm.amax(dim=0)) / 2)
    arcs = (
        Arc(control_points=size.control_points, direction="clockwise", collimator_deg=10.0),
        Arc(control_points=size.control_points, direction="counterclockwise", collimator_deg=350.0),
    )
    try:
        beamlets = fit_beamlet_grid(
            points_mm,
            ControlPoints.from_arcs(arcs),
            (x, y, z),
            load_machine(MACHINE),
            beamlet_width_mm=size.beamlet_width_mm,
            leaf_pairs_per_row=size.leaf_pairs_per_row,
        )
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return arcs, (x, y, z), beamlets


@dataclass(frozen=True)
class OpenKbpSource:
    """The folder of a patient. The clinical dose is stored as `clinical_dose.nii.gz`.

    Args:
        folder: folder of the patient.
        size: name of a size.
        wishes_share: probability that the patient has wishes.
        jaw_margin_mm: margin of jaws around the targets; None for jaws at the edges of the field.
    """

    folder: Path
    size: str
    wishes_share: float = 0.0
    jaw_margin_mm: float | None = None

    @property
    def name(self) -> str:
        """Name of the patient's folder, such as `pt_1`."""
        return self.folder.name

    @property
    def wish_names(self) -> tuple[str, ...]:
        """Names of the wishes that patients draw: the protocol's organs, conformity and homogeneity."""
        return drawn_names(load_protocol(PROTOCOL))

    def load(self) -> SourceCase:
        """Read the patient: the case with its wishes and jaws, and its clinical dose.

        A wish is drawn for every organ of the protocol, so that it does not depend on which organs are contoured, and
        kept for those that the patient has.
        """
        case, dose_gy = read_open_kbp(self.folder, self.size)
        drawn = draw_wishes(name_seed(self.name), self.wishes_share, self.wish_names)
        absent = set(ORGANS) - set(case.structures)
        wishes = {name: factor for name, factor in drawn.items() if name not in absent}
        case = with_jaws(case.with_settings(wishes=wishes), self.jaw_margin_mm)
        return SourceCase(case, {"clinical_dose": dose_gy})
