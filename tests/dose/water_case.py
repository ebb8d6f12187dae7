"""A box or cylinder of water with a spherical target, for the tests of this folder."""

from __future__ import annotations

import torch

from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid


def water_case(
    *,
    control_points: int = 6,
    collimator_deg: float = 0.0,
    gantry_start_deg: float = 180.0,
    gantry_stop_deg: float = 180.0,
    field_mm: float = 80.0,
    beamlets: int = 8,
    voxel_mm: float = 8.0,
    size_mm: tuple[float, float, float] = (160.0, 240.0, 320.0),
    origin_mm: tuple[float, float, float] | None = None,
    isocentre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Case:
    """A water box of `size_mm` (z, y, x), centred unless an origin (x, y, z) is given, 10 mm of air around it."""
    shape = tuple(round(length / voxel_mm) + 4 for length in size_mm)
    if origin_mm is None:
        origin_mm = tuple(-(n - 1) / 2 * voxel_mm for n in reversed(shape))  # type: ignore[assignment]
    grid = VolumeGrid(shape, (voxel_mm,) * 3, origin_mm)  # type: ignore[arg-type]
    body = torch.zeros(shape, dtype=torch.bool)
    body[2:-2, 2:-2, 2:-2] = True
    centres = grid.centres_mm(torch.arange(grid.voxel_count))
    target = ((centres - torch.tensor(isocentre_mm)).norm(dim=-1) < 30).view(shape)
    half = field_mm / 2
    return Case(
        case_id="water",
        source="phantom",
        grid=grid,
        hu=torch.where(body, 0.0, -1000.0),
        structures={"Body": body, "PTV": target},
        prescription_gy={"PTV": 60.0},
        fractions=20,
        isocentre_mm=isocentre_mm,
        arcs=(Arc(gantry_start_deg, gantry_stop_deg, control_points, collimator_deg=collimator_deg),),
        beamlets=BeamletGrid(
            tuple(-half + i * field_mm / beamlets for i in range(beamlets + 1)), -half, field_mm / beamlets, beamlets
        ),
        machine_name="truebeam_millennium120",
        protocol="prostate_60gy_20fx",
    )
