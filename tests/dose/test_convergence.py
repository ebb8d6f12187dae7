"""Refining the ray step, the beamlet width or the node step converges, and samples of voxels agree with the full grid.

Each test prints the order of convergence that it saw (`pytest -s`).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from water_case import water_case

from lightning_vmat.dose import ray_tracing
from lightning_vmat.dose._reference import dose_influence
from lightning_vmat.dose.beam_model import load_beam_model
from lightning_vmat.dose.blur import FINE_NODE_STEP_MM
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.ray_tracing import hounsfield_units, trace_rays
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid, project_to_bev
from lightning_vmat.plan.voxels import all_voxels, sample_voxels


def orders(errors: list[float]) -> list[float]:
    """Observed order between each step and the next, which is half of it."""
    ratio = torch.tensor(errors[:-1], dtype=torch.double) / torch.tensor(errors[1:], dtype=torch.double)
    return torch.log2(ratio).tolist()


def test_depth_converges_with_second_order_in_the_ray_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smooth body, so that the order is that of the rule and not of the surface."""
    case = replace(water_case(voxel_mm=2.5, size_mm=(80.0, 160.0, 160.0)), arcs=(Arc(20.0, 140.0, 3),))
    centres = case.grid.centres_mm(torch.arange(case.grid.voxel_count))
    case = replace(case, hu=hounsfield_units(torch.exp(-((centres / 45) ** 2).sum(dim=1))).view(case.grid.shape))
    index = case.body_index[::37]

    def depth(step_mm: float) -> torch.Tensor:
        monkeypatch.setattr(ray_tracing, "MIN_STEP_MM", step_mm)
        return ray_tracing.radiological_depth(case, index).double()

    finest = depth(2.5)
    steps = [40.0, 20.0, 10.0]
    errors = [float((depth(step) - finest).square().mean().sqrt()) for step in steps]
    print(f"ray steps {steps} mm: errors {errors} mm, orders {orders(errors)}")
    assert min(orders(errors)) > 1.8
    assert errors[-1] < 0.15


def test_ray_step_error_at_a_sharp_surface_shrinks_in_proportion() -> None:
    case = water_case(voxel_mm=4.0)
    body = case.structures["Body"][None].float()
    points = ControlPoints.from_arcs((Arc(0.0, 90.0, 3),))
    x = y = torch.linspace(-30, 30, 13)

    def traced(step_mm: float) -> torch.Tensor:
        return trace_rays(body, case.grid, case.isocentre_mm, points, 1000.0, x, y, step_mm).double()

    finest = traced(0.125)
    steps = [8.0, 4.0, 2.0, 1.0]
    errors = [float((traced(step) - finest).square().mean().sqrt()) for step in steps]
    print(f"ray steps {steps} mm at a surface: errors {errors} mm, orders {orders(errors)}")
    assert sum(orders(errors)) / len(orders(errors)) > 0.9
    assert errors[2] < 0.3


@pytest.mark.parametrize("engine", ["definition", "operator"])
def test_beamlet_width_converges_with_second_order(engine: str) -> None:
    """A smooth fluence cut into ever narrower beamlets."""
    case = replace(water_case(voxel_mm=6.0), arcs=(Arc(29.5, 30.5, 1),))
    index = case.body_index[:: len(case.body_index) // 800]

    def dose(width_mm: float) -> torch.Tensor:
        count = round(80 / width_mm)
        edges = torch.linspace(-40, 40, count + 1)
        cut = replace(case, beamlets=BeamletGrid(tuple(edges.tolist()), -40.0, width_mm, count))
        centres = cut.beamlets.beamlet_centres_mm
        fluence = torch.exp(-((centres / 14) ** 2))[:, None] * torch.exp(-(((centres - 5) / 14) ** 2))
        if engine == "operator":
            return PencilBeamOperator.build(cut, index).forward(fluence[None])
        influence = dose_influence(cut, index, load_beam_model("generic_6mv"))[:, 0]
        return torch.einsum("vlb,lb->v", influence, fluence.double())

    widths = [16.0, 8.0, 4.0]
    finest = dose(1.0)
    errors = [float((dose(w) - finest).square().mean().sqrt() / finest.square().mean().sqrt()) for w in widths]
    print(f"beamlets of {widths} mm, {engine}: errors {errors}, orders {orders(errors)}")
    assert min(orders(errors)) > 1.8
    assert errors[-1] < 0.01


def test_node_step_converges_with_second_order_to_the_definition() -> None:
    """In the peak of one 5 mm beamlet, where it matters most."""
    arc = Arc(29.5, 30.5, 1, collimator_deg=20.0)  # so that voxels lie anywhere between nodes
    case = replace(water_case(voxel_mm=3.0, field_mm=15.0, beamlets=3), arcs=(arc,))
    fluence = torch.zeros(case.fluence_shape)
    fluence[0, 1, 1] = 1.0
    centres = case.grid.centres_mm(case.body_index)
    bev, _ = project_to_bev(centres, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    index = case.body_index[bev[0].abs().amax(dim=1) < 4]
    matrix = dose_influence(case, index, load_beam_model("generic_6mv")).flatten(1)
    defined = matrix @ fluence.flatten().double()

    def error(step_mm: float) -> torch.Tensor:
        dose = PencilBeamOperator.build(case, index, node_step_mm=step_mm).forward(fluence)
        return dose / defined - 1

    steps = [2.0, 1.0, 0.5]
    errors = [float(error(step).square().mean().sqrt()) for step in steps]
    print(f"node steps {steps} mm: errors {errors}, orders {orders(errors)}")
    assert min(orders(errors)) > 1.8
    assert float(error(FINE_NODE_STEP_MM).abs().max()) < 0.002


def test_a_sample_of_voxels_has_the_dose_of_the_full_grid() -> None:
    case = water_case(control_points=4, voxel_mm=6.0)
    fluence = torch.rand(case.fluence_shape, generator=torch.Generator().manual_seed(0))
    full = all_voxels(case)
    dose = torch.zeros(case.grid.voxel_count)
    dose[full.index] = PencilBeamOperator.build(case, full.index).forward(fluence)
    sample = sample_voxels(case, 3000)
    sampled = PencilBeamOperator.build(case, sample.index).forward(fluence)
    torch.testing.assert_close(sampled, dose[sample.index], rtol=5e-3, atol=1e-3 * float(dose.max()))
    target = case.target.flatten()
    mean = (sampled * sample.weight)[target[sample.index]].sum() / sample.weight[target[sample.index]].sum()
    torch.testing.assert_close(mean, dose[target].mean(), rtol=0.01, atol=0)
    samples = [sample_voxels(case, 3000, seed) for seed in range(20)]
    wholes = torch.stack([(dose[s.index] * s.weight).sum() / s.weight.sum() for s in samples])
    torch.testing.assert_close(wholes.mean(), dose[full.index].mean(), rtol=0.02, atol=0)
