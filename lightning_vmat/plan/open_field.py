"""The open conformal field: the beamlets that see the target."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case


def conformal_field(case: Case, margin_mm: float = 5.0) -> Bool[Tensor, "control_point leaf_pair beamlet"]:
    """Returns the beamlets that contain the beam's-eye view of a target voxel, extended by a margin.

    Args:
        case: the case.
        margin_mm: margin around the target's projection, at the isocentre plane.

    Raises:
        ValueError: no beamlet sees the target.
    """
    device = case.hu.device
    points_mm = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev_mm, _ = project_to_bev(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    rows, columns = case.beamlets.shape
    leaf_edges_mm = torch.tensor(case.beamlets.leaf_edges_mm, device=device)
    field = torch.zeros(case.fluence_shape, dtype=torch.bool, device=device)
    control_point = torch.arange(len(case.control_points), device=device)[:, None].expand(bev_mm.shape[:2])
    for shift in ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        x_mm, y_mm = (bev_mm + margin_mm * torch.tensor(shift, device=device)).unbind(-1)
        column = ((x_mm - case.beamlets.beamlet_start_mm) / case.beamlets.beamlet_width_mm).floor().long()
        row = torch.bucketize(y_mm.contiguous(), leaf_edges_mm) - 1
        seen = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        field[control_point[seen], row[seen], column[seen]] = True
    if not bool(field.any()):
        raise ValueError(f"case {case.case_id}: the beamlet grid does not see the target from any control point")
    return field
