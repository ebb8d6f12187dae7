"""Jaws around the target: what the field leaves open beside it is closed by more than leaves."""

from __future__ import annotations

from dataclasses import replace

import torch

from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case

LEAST_MARGIN_MM = 5.0  # the open conformal field, from which planning starts, reaches as far


def with_jaws(case: Case, margin_mm: float) -> Case:
    """The case with jaws that stay, in all arcs, around the beam's-eye view of its targets from every control point.

    They stand at the next boundary of leaf pairs and beamlets outside the margin, so that they cut none. A case with a
    dose influence of its own keeps the field for which this was computed.

    Args:
        case: the case.
        margin_mm: least distance of the jaws from the target's projection, at the isocentre plane.

    Raises:
        ValueError: a margin inside that of the open field.
    """
    if not margin_mm >= LEAST_MARGIN_MM:
        raise ValueError(f"jaw margin {margin_mm} mm: expected at least {LEAST_MARGIN_MM:g}")
    if case.influence_path is not None:
        return case
    points_mm = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev_mm, _ = project_to_bev(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    low, high = bev_mm.amin(dim=(0, 1)) - margin_mm, bev_mm.amax(dim=(0, 1)) + margin_mm
    x_edges, y_edges = case.beamlets.beamlet_edges_mm, torch.tensor(case.beamlets.leaf_edges_mm)
    jaws = [_outside(edges, low[i], high[i]) for i, edges in enumerate((x_edges, y_edges))]
    return case.with_settings(beamlets=replace(case.beamlets, jaws_mm=(*jaws[0], *jaws[1])))


def _outside(edges: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[float, float]:
    """The boundaries next to a stretch, outside it; the outermost where it reaches beyond."""
    first = (torch.searchsorted(edges, low, right=True) - 1).clamp(min=0)
    last = torch.searchsorted(edges, high).clamp(max=len(edges) - 1)
    return float(edges[first]), float(edges[last])
