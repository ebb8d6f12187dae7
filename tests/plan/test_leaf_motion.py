"""The fluence of moving leaves against brute force, and the properties that it must have."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_vmat.plan.aperture import Plan, coverage, delivered_fluence
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.leaf_motion import mean_coverage, sector_ends
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.machine import load_machine

MACHINE = load_machine("truebeam_millennium120")
GRID = BeamletGrid(tuple(map(float, range(-20, 21, 5))), -60.0, 5.0, 24)
ARCS = ControlPoints.from_arcs([Arc(180, 180, 9), Arc(180, 90, 7, direction="counterclockwise")])
SETUP = BeamSetup(ARCS, GRID, MACHINE)


def moving_plan(seed: int, step_mm: float) -> Plan:
    """Within the limits; some sectors have so many monitor units that the dose rate sets their time."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(ARCS), GRID.shape[0])
    left = 80 * (torch.rand(shape[1], generator=generator) - 0.5) + step_mm * torch.randn(shape, generator=generator)
    right = left + 40 * torch.rand(shape, generator=generator)
    return project_to_limits(Plan(left, right, 140 * torch.rand(shape[0], generator=generator)), SETUP)


def brute_force(plan: Plan, steps: int) -> Tensor:
    """Mean of still apertures in the middle of each of so many steps of each half sector, in float64."""
    half_gap_mm, leak = MACHINE.dosimetric_leaf_gap_mm / 2, MACHINE.leaf_transmission
    middle = torch.stack((plan.left_mm.double() - half_gap_mm, plan.right_mm.double() + half_gap_mm))
    mu = plan.mu.double()
    half_s = torch.maximum(ARCS.sector_deg / 2 / MACHINE.gantry_speed_deg_per_s, mu / 2 / MACHINE.dose_rate_mu_per_s)
    total = torch.zeros(*middle.shape[1:], GRID.beamlets, dtype=torch.double)
    for i in range(len(mu)):
        halves = []
        for other in (i - 1, i + 1):
            inside = 0 <= other < len(mu) and ARCS.arc_index[other] == ARCS.arc_index[i]
            neighbour = middle[:, other] if inside else middle[:, i]
            share = half_s[i] / (half_s[i] + half_s[other]) if inside else 0.0
            halves.append(middle[:, i] + share * (neighbour - middle[:, i]))
        for ends in halves:
            for step in range(steps):
                left, right = middle[:, i] + (step + 0.5) / steps * (ends - middle[:, i])
                total[i] += coverage(left[None], right[None], GRID)[0] / (2 * steps)
    return mu[:, None, None] * (leak + (1 - leak) * total)


@pytest.mark.parametrize("step_mm", [15.0, 0.5, 0.01, 0.0])
def test_delivered_fluence_equals_a_thousand_steps(step_mm: float) -> None:
    plan = moving_plan(0, step_mm)
    expected = brute_force(plan, 500) / plan.mu[:, None, None]  # each half sector
    found = plan.fluence_mu(SETUP).double() / plan.mu[:, None, None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_leaves_that_move_deliver_another_fluence_than_still_ones() -> None:
    plan = moving_plan(0, 15.0)
    still = delivered_fluence(plan.left_mm[:1], plan.right_mm[:1], plan.mu[:1], replace(SETUP, control_points=first()))
    assert float((plan.fluence_mu(SETUP)[:1] - still).abs().max()) > 0.1 * float(plan.mu[0])


def first() -> ControlPoints:
    return ControlPoints(**{name: value[:1] for name, value in vars(ARCS).items()})


def test_a_still_leaf_delivers_the_fluence_of_its_aperture() -> None:
    plan = moving_plan(1, 0.0)
    left, right = (bank[:1].expand(len(ARCS), -1) for bank in (plan.left_mm, plan.right_mm))
    gap = MACHINE.dosimetric_leaf_gap_mm / 2
    leak = MACHINE.leaf_transmission
    still = plan.mu[:, None, None] * (leak + (1 - leak) * coverage(left - gap, right + gap, GRID))
    torch.testing.assert_close(Plan(left, right, plan.mu).fluence_mu(SETUP), still, atol=2e-4 * 140, rtol=0)


@pytest.mark.parametrize("step_mm", [15.0, 0.5])
def test_gradient_by_tips_and_monitor_units(step_mm: float) -> None:
    plan = moving_plan(2, step_mm)
    variables = [value.double().requires_grad_() for value in (plan.left_mm, plan.right_mm, plan.mu)]
    assert torch.autograd.gradcheck(
        lambda left, right, mu: delivered_fluence(left, right, mu, SETUP), variables, eps=1e-6, atol=1e-5
    )


def test_mirrored_leaves_deliver_the_mirrored_fluence() -> None:
    plan = moving_plan(3, 10.0)
    mirrored = Plan(-plan.right_mm, -plan.left_mm, plan.mu).fluence_mu(SETUP)
    torch.testing.assert_close(mirrored, plan.fluence_mu(SETUP).flip(-1), atol=1e-3, rtol=1e-5)


def test_an_arc_run_backwards_delivers_the_same_fluence_in_the_other_order() -> None:
    plan = moving_plan(4, 10.0)
    one = replace(SETUP, control_points=ControlPoints.from_arcs([Arc(180, 180, len(ARCS))]))
    backwards = Plan(*(value.flip(0) for value in (plan.left_mm, plan.right_mm, plan.mu))).fluence_mu(one)
    torch.testing.assert_close(backwards, plan.fluence_mu(one).flip(0), atol=1e-3, rtol=1e-5)


def test_opening_a_tip_never_lowers_the_fluence() -> None:
    plan = moving_plan(5, 10.0)
    wider = Plan(plan.left_mm - 1.7, plan.right_mm + 2.3, plan.mu)
    assert float((wider.fluence_mu(SETUP) - plan.fluence_mu(SETUP)).min()) >= -1e-3


def test_sectors_meet_and_arcs_begin_and_end_still() -> None:
    plan = moving_plan(6, 10.0)
    begin, end = sector_ends(plan.left_mm, plan.mu, SETUP)
    same = SETUP.same_arc
    torch.testing.assert_close(end[:-1][same], begin[1:][same], atol=1e-4, rtol=0)
    for still in (begin[0], begin[9]):
        assert any(torch.equal(still, tips) for tips in (plan.left_mm[0], plan.left_mm[9]))
    torch.testing.assert_close(end[8], plan.left_mm[8])
    torch.testing.assert_close(end[15], plan.left_mm[15])


def test_mean_coverage_of_hand_cases() -> None:
    grid = BeamletGrid((0.0, 5.0), 0.0, 10.0, 3)
    begin, end = torch.tensor([0.0, 20.0, 15.0, -30.0, 25.0]), torch.tensor([20.0, 0.0, 15.0, -10.0, 45.0])
    expected = torch.tensor([[0.75, 0.25, 0], [0.75, 0.25, 0], [1, 0.5, 0], [0, 0, 0], [1, 1, 0.9375]])
    torch.testing.assert_close(mean_coverage(begin, end, grid), expected, atol=1e-5, rtol=0)
