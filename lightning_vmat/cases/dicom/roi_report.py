"""Report on the ROIs of a structure set: which became which structure, and which were left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_vmat.files.yaml_file import read_mapping

ROI_FILE = "rois.yaml"


@dataclass(frozen=True)
class StructureSource:
    """The origin of a structure.

    Args:
        structure: name of the structure.
        roi: name of the ROI; empty for a structure that was not drawn.
        how: `exact name`, `type PTV`, `loose name`, or how it was made.
        contours_cc: volume enclosed by its contours on the CT, or volume of the made mask, cc.
    """

    structure: str
    roi: str
    how: str
    contours_cc: float


@dataclass(frozen=True)
class LeftOut:
    """A ROI that was left out.

    Args:
        roi: name of the ROI.
        reason: reason in a few words.
    """

    roi: str
    reason: str


@dataclass(frozen=True)
class AssignedDensity:
    """A ROI with an assigned relative electron density.

    Args:
        roi: name of the ROI.
        density: electron density relative to water.
        where: `all of it`, or `outside the body`.
    """

    roi: str
    density: float
    where: str


@dataclass(frozen=True)
class RoiReport:
    """Structures, left-out ROIs and assigned densities of a structure set.

    Args:
        structures: structures in the order of the case.
        left_out: ROIs that were left out.
        densities: assigned densities.
    """

    structures: tuple[StructureSource, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    densities: tuple[AssignedDensity, ...] = ()

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """The report as lists of plain values."""
        return {name: [asdict(entry) for entry in entries] for name, entries in vars(self).items()}

    def notes(self) -> list[str]:
        """Notes to review: structures that were not found by their exact name, and assigned densities."""
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
    """Read the report on the ROIs of a case; None for a case without one.

    Raises:
        ValueError: an invalid `rois.yaml`.
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
        raise ValueError(f"{path}: expected a list of ROIs ({' '.join(str(error).split())})") from error
