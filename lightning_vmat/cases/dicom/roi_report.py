"""Which ROI of a structure set became which structure, and what became of the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_vmat.files.yaml_file import read_mapping

ROI_FILE = "rois.yaml"


@dataclass(frozen=True)
class StructureSource:
    """Where a structure comes from.

    Args:
        structure: its name.
        roi: name of the ROI; empty if it was not drawn.
        how: `exact name`, `type PTV`, `loose name`, or how it was made.
        contours_cc: volume that its contours enclose on the CT, or of the mask that was made.
    """

    structure: str
    roi: str
    how: str
    contours_cc: float


@dataclass(frozen=True)
class LeftOut:
    """A ROI that became no structure.

    Args:
        roi: its name.
        reason: in a few words.
    """

    roi: str
    reason: str


@dataclass(frozen=True)
class AssignedDensity:
    """A ROI whose voxels have a relative electron density in place of the CT's.

    Args:
        roi: its name.
        density: relative to water.
        where: `all of it`, or `outside the body`.
    """

    roi: str
    density: float
    where: str


@dataclass(frozen=True)
class RoiReport:
    """What became of the ROIs of a structure set.

    Args:
        structures: in the case's order.
        left_out: ROIs that became no structure.
        densities: assigned ones.
    """

    structures: tuple[StructureSource, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    densities: tuple[AssignedDensity, ...] = ()

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """Lists of plain values."""
        return {name: [asdict(entry) for entry in entries] for name, entries in vars(self).items()}

    def notes(self) -> list[str]:
        """What a planner should look at: structures that were not found by their exact name, and densities."""
        lines = [
            f"{one.structure}: {f'ROI {one.roi!r}, ' if one.roi else ''}{one.how}"
            for one in self.structures
            if one.how != "exact name"
        ]
        return [*lines, *(f"ROI {one.roi!r}: density {one.density:g}, {one.where}" for one in self.densities)]


def report_text(report: RoiReport) -> str:
    """The content of `rois.yaml`."""
    return yaml.safe_dump(report.as_json(), sort_keys=False, allow_unicode=True)


def read_report(folder: Path) -> RoiReport | None:
    """What became of the ROIs that a case was made from; None for a case that says nothing about it.

    Raises:
        ValueError: a `rois.yaml` that holds something else.
    """
    path = Path(folder) / ROI_FILE
    if not path.is_file():
        return None
    values = read_mapping(path)
    try:
        return RoiReport(
            tuple(StructureSource(**entry) for entry in values["structures"]),
            tuple(LeftOut(**entry) for entry in values["left_out"]),
            tuple(AssignedDensity(**entry) for entry in values["densities"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no list of ROIs ({' '.join(str(error).split())})") from error
