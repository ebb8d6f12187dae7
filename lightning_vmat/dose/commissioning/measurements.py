"""Measurements of one beam: reader of a CSV file, and the curves in it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLUMNS = ("measurement", "field_mm", "depth_mm", "offset_mm", "ssd_mm", "value")
NEEDED = {
    "pdd": ("field_mm", "depth_mm", "ssd_mm"),
    "tpr": ("field_mm", "depth_mm"),
    "profile": ("field_mm", "depth_mm", "offset_mm", "ssd_mm"),
    "output_factor": ("field_mm", "depth_mm"),
    "dose_per_mu": ("field_mm", "depth_mm", "ssd_mm"),
    "transmission": (),
    "leaf_gap": (),
}
"""Kind of measurement -> columns that it needs in addition to `value`."""
RANGES = {"field_mm": (5.0, 400.0), "depth_mm": (0.0, 500.0), "offset_mm": (-400.0, 400.0), "ssd_mm": (500.0, 1500.0)}
REFERENCE_MM = 100.0  # side of the reference field
SAME_MM = 0.5


@dataclass(frozen=True)
class Curve:
    """Relative doses of one measured curve.

    Args:
        kind: `pdd`, `tpr`, `profile` or `output_factor`.
        field_mm: side of each point's square field at the isocentre plane.
        depth_mm: depth in water.
        offset_mm: distance from the central axis, in the plane of measurement.
        ssd_mm: distance from the source to the water.
        value: dose in any unit.
    """

    kind: str
    field_mm: Array
    depth_mm: Array
    offset_mm: Array
    ssd_mm: Array
    value: Array

    @property
    def name(self) -> str:
        """Description of the curve, like `pdd 10 x 10 cm`."""
        if self.kind == "output_factor":
            return f"output factors, {self.depth_mm[0]:g} mm deep"
        field = f"{self.field_mm[0] / 10:g} x {self.field_mm[0] / 10:g} cm"
        return f"{self.kind} {field}" + (f", {self.depth_mm[0]:g} mm deep" if self.kind == "profile" else "")


@dataclass(frozen=True)
class Measurements:
    """All measurements of a beam.

    Args:
        path: path of the file.
        curves: curves of dose in water.
        dose_per_mu: field, depth, source-surface distance (mm) and Gy per MU; None for 1 cGy per MU at the maximum of
            the reference field, with the source-surface distance equal to the source-axis distance.
        leaf_transmission: fraction; None if it was not measured.
        leaf_gap_mm: dosimetric leaf gap; None if it was not measured.
    """

    path: Path
    curves: tuple[Curve, ...]
    dose_per_mu: tuple[float, float, float, float] | None
    leaf_transmission: float | None
    leaf_gap_mm: float | None

    def of_kind(self, *kinds: str) -> list[Curve]:
        """Returns the curves of the given kinds."""
        return [curve for curve in self.curves if curve.kind in kinds]


def read_measurements(path: Path, sad_mm: float = 1000.0) -> Measurements:
    """Reads a CSV file with the columns `COLUMNS`, one measured value per line.

    - `pdd`: depth dose on the axis at a fixed `ssd_mm`; `tpr`: depth dose at a fixed distance from the source.
    - `profile`: dose across the field at a depth; `offset_mm` in the plane of measurement.
    - `output_factor`: dose of each field over that of 10 x 10 cm at one point: at `ssd_mm`, or without it at the
      isocentre.
    - `transmission` (fraction through closed leaves), `leaf_gap` (dosimetric leaf gap, mm), and `dose_per_mu` (Gy per
      MU): one value each, or none.

    Depth doses and profiles may be in any unit, for example percent. Lines that begin with # are ignored.

    Args:
        path: the file.
        sad_mm: source-axis distance.

    Raises:
        ValueError: an invalid line, named by its number, or a missing measurement.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected measurements (CSV)")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file, expected measurements (CSV)") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and line[:1] != "#"]
    if not numbered:
        raise ValueError(f"{path}: empty, expected measurements (CSV)")
    header = tuple(name.strip() for name in numbered[0][1].split(","))
    if set(header) != set(COLUMNS) or len(header) != len(COLUMNS):
        raise ValueError(f"{path}: columns {', '.join(header)}, expected {', '.join(COLUMNS)}")
    rows = [_row(header, line, f"{path}, line {number}", sad_mm) for number, line in numbered[1:]]
    found = Measurements(
        path, tuple(_curves(rows)), _dose_per_mu(rows), _one(rows, "transmission"), _one(rows, "leaf_gap")
    )
    _check_complete(found)
    return found


Measured = tuple[str, dict[str, float]]


def _row(header: tuple[str, ...], line: str, where: str, sad_mm: float) -> Measured:
    cells = [cell.strip() for cell in next(csv.reader([line]))]
    if len(cells) != len(header):
        raise ValueError(f"{where}: {len(cells)} values, expected {len(header)}")
    texts = dict(zip(header, cells, strict=True))
    kind = texts.pop("measurement")
    if kind not in NEEDED:
        raise ValueError(f"{where}: measurement {kind!r}, expected one of {', '.join(NEEDED)}")
    numbers = {name: _number(text, f"{where}: {name}") for name, text in texts.items() if text}
    for name in ("value", *NEEDED[kind]):
        if name not in numbers:
            raise ValueError(f"{where}: {name} is missing, expected it for {kind}")
    for name, (low, high) in RANGES.items():
        if name in numbers and not low <= numbers[name] <= high:
            raise ValueError(f"{where}: {name} is {numbers[name]:g}, expected {low:g} to {high:g}")
    highest = {"transmission": 0.2, "leaf_gap": 10.0, "output_factor": 2.0, "dose_per_mu": 0.1}.get(kind, 1e6)
    if not (0 <= numbers["value"] <= highest) or (kind not in ("leaf_gap", "profile", "pdd") and not numbers["value"]):
        raise ValueError(f"{where}: value is {numbers['value']:g}, expected a {kind} above 0 and at most {highest:g}")
    depth_mm = numbers.get("depth_mm", 0.0)
    if kind in ("tpr", "output_factor"):
        numbers.setdefault("ssd_mm", sad_mm - depth_mm)
    return kind, {"offset_mm": 0.0, **numbers}


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where} is {text!r}, expected a number")
    return value


def _curves(rows: Iterable[Measured]) -> Iterable[Curve]:
    """Yields curves of the points that belong together, sorted along the curve."""
    together = {
        "pdd": ("field_mm", "ssd_mm"), "tpr": ("field_mm",), "profile": ("field_mm", "depth_mm", "ssd_mm"),
        "output_factor": ("depth_mm", "ssd_mm"),
    }  # fmt: skip
    along = {"profile": "offset_mm", "output_factor": "field_mm"}
    groups: dict[tuple[str, tuple[float, ...]], list[dict[str, float]]] = {}
    for kind, numbers in rows:
        if kind in together:
            groups.setdefault((kind, tuple(numbers[name] for name in together[kind])), []).append(numbers)
    for (kind, _), points in groups.items():
        ordered = sorted(points, key=itemgetter(along.get(kind, "depth_mm")))
        field, depth, offset, ssd, value = (np.array([point[name] for point in ordered]) for name in COLUMNS[1:])
        yield Curve(kind, field, depth, offset, ssd, value)


def _one(rows: Iterable[Measured], kind: str) -> float | None:
    """Returns the mean of repeated measurements, or None."""
    values = [numbers["value"] for name, numbers in rows if name == kind]
    return float(np.mean(values)) if values else None


def _dose_per_mu(rows: Iterable[Measured]) -> tuple[float, float, float, float] | None:
    found = [numbers for name, numbers in rows if name == "dose_per_mu"]
    if not found:
        return None
    field, depth, ssd, value = (found[0][name] for name in ("field_mm", "depth_mm", "ssd_mm", "value"))
    return field, depth, ssd, value


def _check_complete(found: Measurements) -> None:
    """Raises a ValueError that names a measurement which the fit needs and the file lacks."""
    reference = [curve for curve in found.of_kind("pdd", "tpr") if abs(curve.field_mm[0] - REFERENCE_MM) <= SAME_MM]
    if not any(curve.depth_mm.min() <= 50 and curve.depth_mm.max() >= 200 and len(curve.value) >= 5
               for curve in reference):  # fmt: skip
        raise ValueError(f"{found.path}: expected a pdd or tpr of the 10 x 10 cm field from 50 mm or less to 200 mm")
    crossing = [curve for curve in found.of_kind("profile") if _crosses_edge(curve)]
    if not crossing or max(curve.field_mm[0] for curve in crossing) < 2 * REFERENCE_MM:
        raise ValueError(f"{found.path}: expected a profile of a field of 200 mm or more, from its axis over its edge")
    factors = found.of_kind("output_factor")
    if not factors:
        raise ValueError(f"{found.path}: expected output factors of two fields or more besides 10 x 10 cm")
    for curve in factors:
        at_reference = np.abs(curve.field_mm - REFERENCE_MM) <= SAME_MM
        if len(curve.value) < 3 or not at_reference.any():
            raise ValueError(f"{found.path}: {curve.name}: expected 10 x 10 cm and two or more other fields")
    for curve in found.curves:
        if curve.value.max() <= 0:
            raise ValueError(f"{found.path}: {curve.name} holds no dose")


def _crosses_edge(curve: Curve) -> bool:
    distance = curve.ssd_mm[0] + curve.depth_mm[0]
    edge_mm = curve.field_mm[0] / 2 * distance / 1000.0
    return bool(np.abs(curve.offset_mm).min() <= 5 and np.abs(curve.offset_mm).max() >= edge_mm + 5)
