"""Line integrals through boxes have the length that geometry gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from water_case import water_case

from lightning_vmat.dose.ray_tracing import (
    hounsfield_units,
    radiological_depth,
    relative_electron_density,
    trace_rays,
    traced_once,
)
from lightning_vmat.plan.arc import Arc


@pytest.mark.parametrize(
    ("hu", "density"),
    [
        (-1100.0, 0.0),
        (-1000.0, 0.0),
        (-741.0, 0.258),
        (-90.0, 0.95),
        (0.0, 1.0),
        (45.0, 1.04),
        (280.0, 1.15),
        (1500.0, 1.78),
    ],
)
def test_densities_of_tissues(hu: float, density: float) -> None:
    """ICRU Report 46: lung, adipose tissue, water, muscle, spongiosa, cortical bone."""
    assert float(relative_electron_density(torch.tensor([hu]))) == pytest.approx(density, abs=1e-6)


def test_density_grows_with_hu_and_back() -> None:
    hu = torch.linspace(-1000, 3000, 401)
    density = relative_electron_density(hu)
    assert bool((density.diff() > 0).all())
    assert bool((density.diff() < 0.02).all())
    torch.testing.assert_close(hounsfield_units(density), hu, atol=0.01, rtol=1e-4)


@pytest.mark.parametrize("gantry_deg", [0.0, 90.0, 180.0, 270.0])
@pytest.mark.parametrize("collimator_deg", [0.0, 30.0])
def test_depth_on_axis_is_the_depth_in_water(gantry_deg: float, collimator_deg: float) -> None:
    case = water_case(voxel_mm=5.0)
    case = replace(case, arcs=(Arc(gantry_deg - 0.5, gantry_deg + 0.5, 1, collimator_deg=collimator_deg),))
    centres = case.grid.centres_mm(case.body_index)
    axis, sign = (1, 1) if gantry_deg in (0.0, 180.0) else (0, -1)
    sign = sign if gantry_deg in (0.0, 90.0) else -sign
    other = 1 - axis
    on_axis = (centres[:, other].abs() < 3) & (centres[:, 2].abs() < 3)
    half_mm = 120.0 if axis == 1 else 160.0
    depth = radiological_depth(case, case.body_index[on_axis])[0]
    expected = centres[on_axis][:, axis] * sign + half_mm
    torch.testing.assert_close(depth, expected, atol=0.6, rtol=0.002)


def test_depth_along_slanted_rays() -> None:
    case = water_case(voxel_mm=5.0)
    case = replace(case, arcs=(Arc(-0.5, 0.5, 1),))
    index = case.body_index
    centres = case.grid.centres_mm(index)
    inside = (centres[:, 0].abs() < 110) & (centres[:, 2].abs() < 60)  # entered through the front
    offset, below = centres[inside], centres[inside][:, 1] + 120
    distance = 1000 + offset[:, 1]
    expected = below * torch.sqrt(distance**2 + offset[:, 0] ** 2 + offset[:, 2] ** 2) / distance
    torch.testing.assert_close(radiological_depth(case, index[inside])[0], expected, atol=1.0, rtol=0.002)


def test_depth_does_not_depend_on_the_voxels_asked_for() -> None:
    case = water_case(control_points=3)
    index = case.body_index[::5]
    all_depth, few_depth = radiological_depth(case, index), radiological_depth(case, index[:40])
    torch.testing.assert_close(all_depth[:, :40], few_depth, atol=1e-3, rtol=1e-4)


def test_samples_of_voxels_share_one_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = water_case(control_points=3)
    index = case.body_index[::5]
    samples, traced = (index[:40].flip(0), index[20:90]), []

    def counted(*arguments: Any) -> Tensor:
        traced.append(arguments)
        return radiological_depth(*arguments)

    monkeypatch.setattr("lightning_vmat.dose.ray_tracing.radiological_depth", counted)
    depth = traced_once(case, torch.cat(samples))
    assert not traced
    for sample in samples:
        torch.testing.assert_close(depth(case, sample), radiological_depth(case, sample), atol=1e-3, rtol=1e-4)
    assert len(traced) == 1


@pytest.mark.parametrize("gantry_deg", [0.0, 37.0, 250.0])
def test_depth_slice_by_slice_is_that_of_a_couch_hardly_turned(gantry_deg: float) -> None:
    """Without a couch angle rays are sampled in slices, with one in the whole volume; in random tissue."""
    case = water_case(voxel_mm=5.0, isocentre_mm=(12.0, -7.0, 21.0))
    case = replace(case, hu=torch.where(case.structures["Body"], 1000 * torch.rand(case.grid.shape) - 500, -1000.0))
    straight, turned = (
        radiological_depth(
            replace(case, arcs=(Arc(gantry_deg - 0.5, gantry_deg + 0.5, 1, couch_deg=couch_deg),)), case.body_index
        )
        for couch_deg in (0.0, 1e-3)
    )
    assert float(straight.max()) > 200
    torch.testing.assert_close(straight, turned, atol=0.1, rtol=0)


def test_thickness_of_structures() -> None:
    case = replace(water_case(voxel_mm=5.0), arcs=(Arc(-0.5, 0.5, 1), Arc(89.5, 90.5, 1)))
    masks = torch.stack((case.structures["Body"], case.structures["PTV"])).float()
    x, y = torch.tensor([0.0, 60.0]), torch.tensor([0.0])
    traced = trace_rays(masks, case.grid, case.isocentre_mm, case.control_points, 1000.0, x, y, 2.0)
    assert traced.shape == (2, 2, 1, 2)
    torch.testing.assert_close(traced[0, :, 0, 0], torch.tensor([240.0, 320.0]), atol=2.0, rtol=0)
    torch.testing.assert_close(traced[1, :, 0, 0], torch.tensor([60.0, 60.0]), atol=5.0, rtol=0)
    assert float(traced[1, :, 0, 1].abs().max()) == 0
    half = trace_rays(masks, case.grid, case.isocentre_mm, case.control_points, 1000.0, x, y, 2.0, stop_mm=1000.0)
    torch.testing.assert_close(half[0, :, 0, 0], traced[0, :, 0, 0] / 2, atol=1.0, rtol=0)


def test_an_empty_volume_has_no_thickness() -> None:
    case = water_case(control_points=2)
    empty = torch.zeros(1, *case.grid.shape)
    x = y = torch.linspace(-50, 50, 3)
    assert not trace_rays(empty, case.grid, case.isocentre_mm, case.control_points, 1000.0, x, y, 3.0).any()
