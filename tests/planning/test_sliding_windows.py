"""Sliding windows deliver any map where leaves may travel, by sweeps to and fro."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.plan.aperture import coverage
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.planning.sliding_windows import crossing_sectors, leaf_step_mm, sliding_windows

CONTROL_POINTS = 180


@pytest.fixture(scope="module")
def setup() -> BeamSetup:
    case = make_phantom(0, "tiny")
    return dataclasses.replace(
        case, arcs=(dataclasses.replace(case.arcs[0], control_points=CONTROL_POINTS),)
    ).beam_setup


def a_map(setup: BeamSetup, seed: int = 0) -> torch.Tensor:
    """A smooth map that is the same at all gantry angles, with two rows of other widths and one without fluence."""
    rows, columns = setup.beamlets.shape
    one = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) + 0.5
    one[0], one[1, :3], one[2, -2:] = 0, 0, 0
    return (one * setup.beamlets.inside_jaws).expand(len(setup.control_points), -1, -1)


def at_rest(setup: BeamSetup, fluence_mu: torch.Tensor) -> torch.Tensor:
    """The sum over an arc of what the plan's apertures deliver if leaves stay where they are amid each sector."""
    plan = sliding_windows(fluence_mu, setup)
    return (plan.mu[:, None, None] * coverage(plan.left_mm, plan.right_mm, setup.beamlets)).sum(dim=0)


def test_a_window_delivers_the_sum_of_its_maps(setup: BeamSetup) -> None:
    """Sampled amid the sectors of its windows, of which this arc has many."""
    fluence_mu = a_map(setup)
    wanted, delivered = fluence_mu.sum(dim=0), at_rest(setup, fluence_mu)
    assert float((delivered - wanted).norm() / wanted.norm()) < 0.1
    torch.testing.assert_close(delivered.sum(), wanted.sum(), rtol=0.02, atol=0)
    assert float(delivered[0].abs().max()) == 0


def test_more_sectors_in_a_window_deliver_the_map_more_exactly(setup: BeamSetup) -> None:
    slow = dataclasses.replace(
        setup, machine=dataclasses.replace(setup.machine, leaf_speed_mm_per_s=setup.machine.leaf_speed_mm_per_s / 10)
    )
    errors = []
    for one in (setup, slow):
        fluence_mu = a_map(one)
        errors.append(float((at_rest(one, fluence_mu) - fluence_mu.sum(dim=0)).norm()))
    assert crossing_sectors(a_map(slow), slow) == pytest.approx(10 * crossing_sectors(a_map(setup), setup))
    assert errors[1] < 0.5 * errors[0]


def test_leaves_keep_to_their_speed_in_a_sweep_and_turn_at_its_end(setup: BeamSetup) -> None:
    plan = sliding_windows(a_map(setup), setup)
    moves = torch.stack((plan.left_mm, plan.right_mm)).diff(dim=1)
    directions = moves.sum(dim=(0, 2)).sign()
    turns = int((directions.diff().abs() > 1).sum())
    assert turns > 2  # there is more than one window
    within = directions[:-1] == directions[1:]
    assert float(moves.abs()[:, :-1][:, within].max()) <= leaf_step_mm(setup) + 1e-3
    assert bool((plan.right_mm >= plan.left_mm - 1e-4).all())


def test_the_projected_plan_is_deliverable(setup: BeamSetup) -> None:
    plan = project_to_limits(sliding_windows(a_map(setup), setup), setup)
    assert not any(machine_violations(plan, setup).values())


def test_a_mirrored_map_gives_the_mirrored_sweep(setup: BeamSetup) -> None:
    """A sweep of the mirror image, in which the other leaf leads."""
    fluence_mu = a_map(setup)
    torch.testing.assert_close(
        at_rest(setup, fluence_mu.flip(-1)).flip(-1),
        at_rest(setup, fluence_mu),
        rtol=0.1,
        atol=0.05 * float(fluence_mu.sum(dim=0).max()),
    )


def test_without_fluence_a_plan_is_closed_and_finite(setup: BeamSetup) -> None:
    plan = sliding_windows(torch.zeros(CONTROL_POINTS, *setup.beamlets.shape), setup)
    assert all(bool(value.isfinite().all()) for value in vars(plan).values())
    assert torch.equal(plan.left_mm, plan.right_mm)
