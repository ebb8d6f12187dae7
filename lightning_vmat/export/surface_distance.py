"""Distance of the source from the patient's surface along the beam axis."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.case import BODY, Case

STEP_MM = 1.0


def surface_distance_mm(case: Case, arc: Arc, gantry_deg: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """Source-to-surface distance at gantry angles of an arc, mm; the source-axis distance if the axis misses the body.

    Args:
        case: gives body, isocentre and source-axis distance.
        arc: gives the couch angle.
        gantry_deg: gantry angles.
    """
    one = ControlPoints.from_arcs((replace(arc, control_points=1),))
    points = ControlPoints(
        gantry_deg=gantry_deg.float(),
        collimator_deg=one.collimator_deg.expand(len(gantry_deg)),
        couch_deg=one.couch_deg.expand(len(gantry_deg)),
        sector_deg=one.sector_deg.expand(len(gantry_deg)),
        arc_index=one.arc_index.expand(len(gantry_deg)),
    )
    to_source = points.beam_axes()[:, 2]
    sad_mm = case.machine.sad_mm
    distances = torch.arange(0.0, sad_mm, STEP_MM)
    places = torch.tensor(case.isocentre_mm) + (sad_mm - distances)[None, :, None] * to_source[:, None, :]
    index = case.grid.index_coordinates(places).round().long()
    x, y, z = index.unbind(-1)
    nz, ny, nx = case.grid.shape
    on_grid = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    body = case.structures[BODY][z.clamp(0, nz - 1), y.clamp(0, ny - 1), x.clamp(0, nx - 1)] & on_grid
    first = distances[body.int().argmax(dim=1)]
    return torch.where(body.any(dim=1), first, torch.full_like(first, sad_mm))
