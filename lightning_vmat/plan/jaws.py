"""Jaws around the target: what the field leaves open beside it is closed by more than leaves."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from lightning_vmat.plan.beamlets import SAME_MM, bev_extent
from lightning_vmat.plan.case import Case

LEAST_MARGIN_MM = 5.0  # the open conformal field, from which planning starts, reaches as far


def with_jaws(case: Case, margin_mm: float | None) -> Case:
    """The case with jaws that stay, in all arcs, around the beam's-eye view of its targets from every control point.

    Args:
        case: the case.
        margin_mm: least distance of the jaws from the projection of the target's voxel centres, at the isocentre
            plane; None for the case as it is.

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
    """Raise a ValueError for a margin that is no number, or inside that of the open field."""
    if margin_mm is not None and not (math.isfinite(margin_mm) and margin_mm >= LEAST_MARGIN_MM):
        raise ValueError(f"jaw margin {margin_mm} mm: expected at least {LEAST_MARGIN_MM:g}")


def within_jaws(case: Case, jaws_mm: tuple[float, float, float, float]) -> Case:
    """The case with jaws at the next boundaries of leaf pairs and beamlets outside X1, X2, Y1, Y2: they cut none.

    A machine without X jaws has them at the edges of the field, which leaves alone bound. A case with a dose influence
    of its own keeps the field for which this was computed.

    Raises:
        ValueError: jaws that leave nothing of the case's field open.
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
    """The boundaries next to a stretch, outside it; the outermost where it reaches beyond."""
    first = int((edges <= low + SAME_MM).sum()) - 1
    last = int((edges < high - SAME_MM).sum())
    return float(edges[max(first, 0)]), float(edges[min(last, len(edges) - 1)])
