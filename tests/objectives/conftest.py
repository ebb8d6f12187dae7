"""A small case: nested spheres in a cylinder, with two organs beside them."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid


def _ball(x: torch.Tensor, centre: tuple[float, float, float], radius: float) -> torch.Tensor:
    return (x - torch.tensor(centre)).norm(dim=-1).le(radius)


@pytest.fixture(scope="session")
def nested_case() -> Case:
    grid = VolumeGrid((16, 20, 24), (6.0, 5.0, 4.0), (-69.0, -47.5, -30.0))
    points = grid.centres_mm(torch.arange(grid.voxel_count)).reshape(*grid.shape, 3)
    structures = {
        "Body": points[..., :2].norm(dim=-1).le(46.0),
        "PTV70": _ball(points, (0.0, 0.0, 0.0), 12.0),
        "PTV63": _ball(points, (0.0, 0.0, 0.0), 18.0),
        "PTV56": _ball(points, (6.0, 0.0, 0.0), 24.0),
        "SpinalCord": _ball(points, (0.0, 34.0, 0.0), 8.0),
        "Larynx": _ball(points, (0.0, -18.0, 0.0), 12.0),
    }
    return Case(
        case_id="nested",
        source="test",
        grid=grid,
        hu=torch.zeros(grid.shape),
        structures=structures,
        prescription_gy={"PTV70": 70.0, "PTV63": 63.0, "PTV56": 56.0},
        fractions=35,
        isocentre_mm=(0.0, 0.0, 0.0),
        arcs=(Arc(control_points=4),),
        beamlets=BeamletGrid((-10.0, 0.0, 10.0), -10.0, 10.0, 2),
        machine_name="truebeam_millennium120",
        protocol="head_and_neck_70gy_35fx",
    )
