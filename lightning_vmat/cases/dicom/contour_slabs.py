"""Planes of contours as slabs: each plane covers the tissue up to the middle between it and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lightning_vmat.cases.dicom.contour_groups import Group, Points, grouped

PLANAR_MM = 0.1  # largest spread of a contour along z
MOST_SKIPPED = 2  # largest number of skipped slices between two planes of a sparse structure
SLACK = 1.05  # tolerance for distances between slices, as positions are rounded


@dataclass(frozen=True)
class Slab:
    """The slab of tissue that the contours of one plane cover.

    Args:
        height_mm: z of the plane, mm.
        low_mm: lower end of the slab.
        high_mm: upper end of the slab; the next slab begins there or above.
        groups: see `grouped`.
    """

    height_mm: float
    low_mm: float
    high_mm: float
    groups: list[Group]

    @property
    def contours(self) -> list[Points]:
        """All contours of the slab, over its groups."""
        return [contour for group in self.groups for contour in group]


def slabs(contours: list[Points], step_mm: float, exclusive: bool = False) -> list[Slab]:
    """The slabs of a structure, from inferior to superior.

    Neighbouring planes share the distance between them if it is one slice, or up to three slices if the contours
    overlap: a structure may be drawn on every second or third slice, or on some slices only. At an end, a
    slab extends as far as on its other side; the slab of a single plane is one slice thick.

    Args:
        contours: corners (x, y, z) of each contour, LPS mm, each in a plane of constant z.
        step_mm: distance between slices.
        exclusive: see `grouped`.

    Raises:
        ValueError: a contour that is not finite or not planar, or a structure that is drawn more sparsely.
    """
    planes = _planes(contours)
    heights = list(planes)
    gaps = np.diff(heights)
    above = [_overlap(planes[low], planes[high]) for low, high in pairwise(heights)]
    most_mm = (MOST_SKIPPED + 1) * step_mm * SLACK
    sparse = [float(gap) for gap, overlap in zip(gaps, above, strict=True) if overlap and gap > most_mm]
    if len(sparse) > 1 and len(sparse) > len(gaps) / 2:
        raise ValueError(
            f"contours {np.median(sparse):.1f} mm apart on slices {step_mm:.1f} mm apart, expected them on every "
            f"{MOST_SKIPPED + 1} slices at least"
        )
    bridged = [gap <= step_mm * SLACK or (overlap and gap <= most_mm) for gap, overlap in zip(gaps, above, strict=True)]
    half = [float(gap) / 2 if joined else None for gap, joined in zip(gaps, bridged, strict=True)]
    found = []
    for (height, members), below, over in zip(planes.items(), [None, *half], [*half, None], strict=True):
        down = next(reach for reach in (below, over, step_mm / 2) if reach is not None)
        up = next(reach for reach in (over, below, step_mm / 2) if reach is not None)
        found.append(Slab(height, height - down, height + up, grouped(members, exclusive)))
    return found


def runs(found: list[Slab]) -> list[list[Slab]]:
    """Groups of slabs that follow one another without a gap."""
    parts: list[list[Slab]] = []
    for slab in found:
        if parts and abs(parts[-1][-1].high_mm - slab.low_mm) < 1e-6:
            parts[-1].append(slab)
        else:
            parts.append([slab])
    return parts


def _planes(contours: list[Points]) -> dict[float, list[Points]]:
    """Contours by z, from inferior to superior."""
    planes: dict[float, list[Points]] = {}
    for contour in contours:
        if not np.isfinite(contour).all():
            raise ValueError("contour with NaN or infinite coordinates, expected finite ones")
        if np.ptp(contour[:, 2]) > PLANAR_MM:
            raise ValueError(f"contour spans {np.ptp(contour[:, 2]):.2f} mm along z, expected axial contours")
    for contour in sorted(contours, key=lambda points: float(points[0, 2])):
        height = float(contour[0, 2])
        below = next(reversed(planes), None)
        planes.setdefault(below if below is not None and height - below < PLANAR_MM else height, []).append(contour)
    return planes


def _overlap(one: list[Points], other: list[Points]) -> bool:
    """Whether the bounding boxes of contours in two planes overlap in x and y."""
    boxes = [[(c[:, :2].min(axis=0), c[:, :2].max(axis=0)) for c in plane] for plane in (one, other)]
    return any(
        bool((np.maximum(low, its_low) <= np.minimum(high, its_high)).all())
        for low, high in boxes[0]
        for its_low, its_high in boxes[1]
    )
