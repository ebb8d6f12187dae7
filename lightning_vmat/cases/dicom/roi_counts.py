"""Checks that the sequences of an RTSTRUCT are consistent."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset


def check_counts(data: Dataset, path: Path) -> None:
    """Raise a ValueError if contours belong to no ROI or to two, or have another number of points than stated."""
    numbers = [int(item.ROINumber) for item in data.get("StructureSetROISequence") or []]
    drawn = [item for item in data.get("ROIContourSequence") or [] if item.get("ContourSequence")]
    referenced = [int(item.ReferencedROINumber) for item in drawn]
    for kind, found in (("ROIs", numbers), ("sets of contours", referenced)):
        if len(set(found)) < len(found):
            raise ValueError(f"{path}: {len(found)} {kind} of {len(set(found))} ROI numbers, expected one of each")
    if lost := set(referenced) - set(numbers):
        raise ValueError(f"{path}: contours of ROI number {min(lost)}, expected one of {sorted(numbers)[:20]}")
    for number, item in zip(referenced, drawn, strict=True):
        for contour in item.ContourSequence:
            _check_points(contour, number, path)


def _check_points(contour: Dataset, number: int, path: Path) -> None:
    stated, found = contour.get("NumberOfContourPoints"), len(contour.get("ContourData") or [])
    if stated not in (None, "") and 3 * int(stated) != found:
        raise ValueError(f"{path}: contour of ROI number {number} has {found} coordinates, expected {3 * int(stated)}")
