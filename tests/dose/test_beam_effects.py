"""Horns, leaf transmission and leaf gap, each by its own effect on dose in water."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from water_case import water_case

from lightning_vmat.dose.beam_model import even_beam, load_beam_model
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.plan.aperture import delivered_fluence
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case

ISOCENTRE_PLANE_MM = 3.0


def one_beam(field_mm: float, beamlets: int) -> Case:
    return replace(
        water_case(voxel_mm=4.0, field_mm=field_mm, beamlets=beamlets, size_mm=(240.0, 240.0, 320.0)),
        arcs=(Arc(-0.5, 0.5, 1),),
    )


def plane(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices and places of the voxels at the isocentre's depth."""
    index = case.body_index
    centres = case.grid.centres_mm(index)
    chosen = centres[:, 1].abs() < ISOCENTRE_PLANE_MM
    return index[chosen], centres[chosen]


def test_horns_raise_the_fluence_off_the_axis() -> None:
    model = load_beam_model("generic_6mv")
    radii = torch.tensor([0.0, 30.0, 60.0, 100.0, 200.0])
    open_fluence = model.open_fluence(radii, torch.zeros(1))[0]
    assert float(open_fluence[0]) == 1.0
    assert bool((open_fluence.diff() > 0).all())
    assert 1.015 < float(open_fluence[2]) < 1.03
    assert float(open_fluence[-1]) == pytest.approx(1.04, abs=0.002)


@pytest.mark.parametrize("place", [0, 5, 19])
def test_a_beamlet_gives_dose_in_proportion_to_the_open_fluence_there(place: int) -> None:
    case = one_beam(160.0, 20)
    index = plane(case)[0]
    model = load_beam_model("generic_6mv")
    fluence = torch.zeros(case.fluence_shape)
    fluence[0, 12, place] = 1.0
    horned, even = (PencilBeamOperator.build(case, index, m).forward(fluence) for m in (model, even_beam(model)))
    expected = model.open_fluence(case.beamlets.beamlet_centres_mm, case.beamlets.leaf_centres_mm)[12, place].float()
    calibration = (model.depth_weights / even_beam(model).depth_weights)[0, 100].float()
    torch.testing.assert_close(horned, even * expected * calibration, rtol=1e-4, atol=1e-7)


def test_horns_show_in_the_profile_of_a_wide_field() -> None:
    case = one_beam(200.0, 20)
    index, places = plane(case)
    model = load_beam_model("generic_6mv")
    ones = torch.ones(case.fluence_shape)
    horned, even = (PencilBeamOperator.build(case, index, m).forward(ones) for m in (model, even_beam(model)))
    middle = places[:, [0, 2]].norm(dim=1) < 10
    aside = ((places[:, 0].abs() - 70) < 4) & ((places[:, 0].abs() - 70) > -4) & (places[:, 2].abs() < 10)
    ratio = (horned[aside].mean() / horned[middle].mean()) / (even[aside].mean() / even[middle].mean())
    assert 1.01 < float(ratio) < 1.03


def test_closed_leaves_transmit_their_share() -> None:
    case = one_beam(80.0, 16)
    index, _ = plane(case)
    operator = PencilBeamOperator.build(case, index)
    machine = replace(case.machine, dosimetric_leaf_gap_mm=0.0)
    closed = torch.zeros(1, case.beamlets.shape[0])
    fluence = delivered_fluence(closed, closed, torch.tensor([100.0]), replace(case.beam_setup, machine=machine))
    dose = operator.forward(fluence)
    open_dose = operator.forward(torch.full(operator.fluence_shape, 100.0))
    torch.testing.assert_close(dose, 0.015 * open_dose, rtol=1e-4, atol=1e-6)


def test_the_leaf_gap_widens_the_field() -> None:
    case = one_beam(80.0, 32)
    index, places = plane(case)
    operator = PencilBeamOperator.build(case, index)
    line = places[:, 2].abs() < 3
    half = torch.full((1, case.beamlets.shape[0]), 20.0)

    def integral(gap_mm: float) -> torch.Tensor:
        """Of dose along leaf travel, without transmission: in proportion to the opening."""
        machine = replace(case.machine, dosimetric_leaf_gap_mm=gap_mm, leaf_transmission=0.0)
        fluence = delivered_fluence(-half, half, torch.tensor([100.0]), replace(case.beam_setup, machine=machine))
        return operator.forward(fluence)[line].sum()

    assert case.machine.dosimetric_leaf_gap_mm == 1.8
    torch.testing.assert_close(integral(1.8) / integral(0.0), torch.tensor(41.8 / 40), rtol=5e-3, atol=0)


def test_leaves_that_touch_let_dose_through_their_gap() -> None:
    case = one_beam(80.0, 32)
    index, places = plane(case)
    operator = PencilBeamOperator.build(case, index)
    middle = torch.zeros(1, case.beamlets.shape[0])
    fluence = delivered_fluence(middle, middle, torch.tensor([100.0]), case.beam_setup)
    dose = operator.forward(fluence)
    open_dose = operator.forward(torch.full(operator.fluence_shape, 100.0))
    axis = (places[:, 0].abs() < 3) & (places[:, 2].abs() < 10)
    aside = ((places[:, 0] - 24).abs() < 3) & (places[:, 2].abs() < 10)
    assert float(dose[axis].mean() / open_dose[axis].mean()) > 0.1
    assert float(dose[aside].mean() / open_dose[aside].mean()) < 0.03
