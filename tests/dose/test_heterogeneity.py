"""What the radiological-depth model must do in slabs, beneath oblique and stepped surfaces; and what it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from water_case import water_case

from lightning_vmat.dose.beam_model import load_beam_model
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.ray_tracing import hounsfield_units, radiological_depth, relative_electron_density
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case

BONE, LUNG, AIR = 1.6, 0.26, 0.0
SLAB_MM = (-80.0, -40.0)  # along y: from 40 to 80 mm below the front surface
VOXEL_MM = 4.0


def case_with(density: torch.Tensor | None = None, gantry_deg: float = 0.0) -> Case:
    """A water box from -120 to 120 mm along y, one beam of 80 x 80 mm, and another density if given."""
    case = replace(water_case(voxel_mm=VOXEL_MM), arcs=(Arc(gantry_deg - 0.5, gantry_deg + 0.5, 1),))
    return case if density is None else replace(case, hu=hounsfield_units(density))


def places(case: Case) -> torch.Tensor:
    """Voxel centres [z, y, x, 3]."""
    return case.grid.centres_mm(torch.arange(case.grid.voxel_count)).view(*case.grid.shape, 3)


def slab(value: float) -> Case:
    case = case_with()
    y = places(case)[..., 1]
    water = relative_electron_density(case.hu)
    inside = (y > SLAB_MM[0]) & (y < SLAB_MM[1]) & case.structures["Body"]
    return case_with(torch.where(inside, torch.tensor(value), water))


def axis_of(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices and y of the body's voxels nearest to the axis of gantry 0."""
    centres = places(case)
    near = (centres[..., 0].abs() < VOXEL_MM) & (centres[..., 2].abs() < VOXEL_MM) & case.structures["Body"]
    index = near.flatten().nonzero()[:, 0]
    return index, centres.view(-1, 3)[index, 1]


def open_dose(case: Case, index: torch.Tensor) -> torch.Tensor:
    operator = PencilBeamOperator.build(case, index)
    return operator.forward(torch.ones(operator.fluence_shape))


@pytest.mark.parametrize("value", [BONE, LUNG, AIR])
def test_depth_counts_the_slab_by_its_density(value: float) -> None:
    case = slab(value)
    index, y = axis_of(case)
    inside = (y.clamp(*SLAB_MM) - SLAB_MM[0]) * (value - 1)
    torch.testing.assert_close(radiological_depth(case, index)[0], y + 120 + inside, atol=1.0, rtol=0)


@pytest.mark.parametrize("value", [BONE, LUNG, AIR])
def test_dose_beyond_a_slab_is_that_of_water_at_the_same_radiological_depth(value: float) -> None:
    case, water = slab(value), case_with()
    index, y = axis_of(case)
    beyond = y > SLAB_MM[1] + 10
    dose, depth = open_dose(case, index), radiological_depth(case, index)[0]
    model, distance = load_beam_model("generic_6mv"), 1000 + y
    expected = model.square_field_dose(80.0, depth.double()) * (1000 / distance) ** 2 * case.fractions
    torch.testing.assert_close(dose[beyond].double(), expected[beyond], rtol=0.01, atol=0)
    change = dose[beyond] / open_dose(water, index)[beyond]
    assert bool((change > 1.02).all() if value < 1 else (change < 0.95).all())


def test_dose_in_an_air_cavity_falls_with_distance_only() -> None:
    case = slab(AIR)
    index, y = axis_of(case)
    cavity = (y > SLAB_MM[0] + 8) & (y < SLAB_MM[1] - 8)
    scaled = open_dose(case, index)[cavity] * (1000 + y[cavity]) ** 2
    torch.testing.assert_close(scaled, scaled.mean().expand_as(scaled), rtol=2e-3, atol=0)


@pytest.mark.parametrize("gantry_deg", [20.0, 40.0])
def test_depth_below_an_oblique_surface_is_the_slanted_path(gantry_deg: float) -> None:
    case = case_with(gantry_deg=gantry_deg)
    angle = torch.deg2rad(torch.tensor(gantry_deg))
    towards_source = torch.stack((angle.sin(), -angle.cos(), torch.tensor(0.0)))
    centres = places(case)
    points = centres.view(-1, 3)
    along = points @ towards_source
    aside = (points - along[:, None] * towards_source).norm(dim=1)
    index = ((aside < 0.8 * VOXEL_MM) & (along.abs() < 60) & case.structures["Body"].flatten()).nonzero()[:, 0]
    expected = (points[index, 1] + 120) / angle.cos()
    torch.testing.assert_close(radiological_depth(case, index)[0], expected, atol=2.0, rtol=0.01)


def test_a_step_in_the_surface_is_a_step_in_depth() -> None:
    case, step_mm = case_with(), 40.0
    centres = places(case)
    cut = (centres[..., 1] < -120 + step_mm) & (centres[..., 0] > 0)
    case = case_with(torch.where(cut, torch.tensor(0.0), relative_electron_density(case.hu)))
    deep = (centres[..., 1].abs() < 3) & (centres[..., 2].abs() < 3) & ((centres[..., 0].abs() - 22).abs() < 3)
    index = deep.flatten().nonzero()[:, 0]
    depth, x = radiological_depth(case, index)[0], centres.view(-1, 3)[index, 0]
    torch.testing.assert_close(depth[x < 0].mean() - depth[x > 0].mean(), torch.tensor(step_mm), atol=1.0, rtol=0)
    dose = open_dose(case, index)
    assert float(dose[x > 0].mean() / dose[x < 0].mean()) > 1.15


def test_what_lies_beside_a_ray_is_not_seen() -> None:
    """A limit of the model: scatter is that of water at the point's own depth, whatever surrounds it."""
    case = case_with()
    centres = places(case)
    beside = (centres[..., 0].abs() > 16) & case.structures["Body"]
    lung = case_with(torch.where(beside, torch.tensor(LUNG), relative_electron_density(case.hu)))
    index, _ = axis_of(case)
    torch.testing.assert_close(open_dose(lung, index), open_dose(case, index), rtol=2e-3, atol=0)
