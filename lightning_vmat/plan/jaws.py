"""Jaws around the targets, which shield the rest of the field in addition to closed leaves."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lightning_vmat.plan.beamlets import SAME_MM, bev_extent
from lightning_vmat.plan.case import Case

LEAST_MARGIN_MM = 5.0  # margin of the open conformal field, from which planning starts


def with_jaws(case: Case, margin_mm: float | None) -> Case:
    """Returns the case with fixed jaws around the beam's-eye view of its targets from every control point of all arcs.

    Args:
        case: the case.
        margin_mm: minimum distance of the jaws from the projection of the target's voxel centres, at the isocentre
            plane; None to return the case unchanged.

    Raises:
        ValueError: see `check_jaw_margin`.
    """
    check_jaw_margin(margin_mm)
    if margin_mm is None:
        return case
    points_mm = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    low, high = bev_extent(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    (x1, y1), (x2, y2) = (low - margin_mm).tolist(), (high + margin_mm).tolist()
    return within_jaws(case, (x1, x2, y1, y2))


def check_jaw_margin(margin_mm: float | None) -> None:
    """Raises a ValueError if the margin is not finite or smaller than that of the open conformal field."""
    if margin_mm is not None and not (math.isfinite(margin_mm) and margin_mm >= LEAST_MARGIN_MM):
        raise ValueError(f"jaw margin {margin_mm} mm: expected at least {LEAST_MARGIN_MM:g}")


def within_jaws(case: Case, jaws_mm: tuple[float, float, float, float]) -> Case:
    """Returns the case with jaws at the nearest boundaries of leaf pairs and beamlets outside X1, X2, Y1, Y2.

    On a machine without X jaws, X1 and X2 are the edges of the field, where leaves alone shield. A case with its own
    dose influence is returned unchanged, because the influence was computed for its field.

    Raises:
        ValueError: jaws that close the case's whole field.
    """
    if case.influence_path is not None:
        return case
    x_edges, y_edges = case.beamlets.beamlet_edges_mm, torch.tensor(case.beamlets.leaf_edges_mm)
    along_mm = jaws_mm[:2] if case.machine.x_jaws else (float(x_edges[0]), float(x_edges[-1]))
    jaws = (*_outside(x_edges, *along_mm), *_outside(y_edges, *jaws_mm[2:]))
    try:
        return case.with_settings(beamlets=replace(case.beamlets, jaws_mm=jaws))
    except ValueError as error:
        raise ValueError(f"case {case.case_id}: {error}") from error


def _outside(edges: torch.Tensor, low: float, high: float) -> tuple[float, float]:
    """Returns the nearest boundaries outside an interval, or the outermost ones where it extends beyond the grid."""
    first = int((edges <= low + SAME_MM).sum()) - 1
    last = int((edges < high - SAME_MM).sum())
    return float(edges[max(first, 0)]), float(edges[min(last, len(edges) - 1)])
