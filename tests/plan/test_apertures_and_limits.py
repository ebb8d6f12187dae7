"""Apertures deliver what they should, and the projection leaves nothing that the machine cannot do."""

from dataclasses import replace
from importlib import resources

import pytest
import torch

from lightning_vmat.plan.aperture import Plan, coverage, delivered_fluence
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.machine import Machine, load_machine

MACHINE = load_machine("truebeam_millennium120")
GRID = BeamletGrid(tuple(map(float, range(-60, 61, 5))), -60.0, 5.0, 24)
ARCS = ControlPoints.from_arcs([Arc(180, 180, 45), Arc(180, 180, 45, direction="counterclockwise")])
SETUP = BeamSetup(ARCS, GRID, MACHINE)


def random_plan(seed: int, reach_mm: float = 150.0) -> Plan:
    generator = torch.Generator().manual_seed(seed)
    tips = reach_mm * torch.randn(2, len(ARCS), GRID.shape[0], generator=generator)
    return Plan(tips[0], tips[1], 20 * torch.rand(len(ARCS), generator=generator))


def moving(plan: Plan) -> Plan:
    shift = 5.0 * torch.sin(torch.arange(len(plan.mu)) / 3)[:, None]
    return replace(plan, left_mm=plan.left_mm + shift, right_mm=plan.right_mm + shift)


def test_coverage_of_a_hand_case() -> None:
    grid = BeamletGrid((0.0, 5.0), -10.0, 5.0, 4)
    open_fraction = coverage(torch.tensor([[-6.0]]), torch.tensor([[2.0]]), grid)
    torch.testing.assert_close(open_fraction[0, 0], torch.tensor([0.2, 1.0, 0.4, 0.0]))


def test_coverage_adds_up_to_the_opening() -> None:
    plan = random_plan(0, reach_mm=40.0)
    left, right = (tip.clamp(GRID.beamlet_start_mm, GRID.beamlet_stop_mm) for tip in (plan.left_mm, plan.right_mm))
    opening = (right - left).clamp(min=0.0)
    total = coverage(left, right, GRID).sum(dim=-1) * GRID.beamlet_width_mm
    torch.testing.assert_close(total, opening, atol=1e-4, rtol=0)


def test_delivered_fluence_holds_transmission_and_leaf_gap() -> None:
    grid = BeamletGrid((0.0, 5.0), -10.0, 5.0, 4)
    one_beam = BeamSetup(ControlPoints.from_arcs([Arc(control_points=1)]), grid, MACHINE)
    closed = delivered_fluence(torch.tensor([[0.0]]), torch.tensor([[0.0]]), torch.tensor([100.0]), one_beam)
    assert float(closed[0, 0, 0]) == pytest.approx(1.5, abs=1e-4)  # 1.5 % of 100 MU far from the tips
    leak = (float(closed.sum()) - 4 * 1.5) / (100 * 0.985) * 5.0
    assert leak == pytest.approx(MACHINE.dosimetric_leaf_gap_mm, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_projected_plan_violates_nothing(seed: int) -> None:
    plan = random_plan(seed)
    assert sum(machine_violations(plan, SETUP).values()) > 1000
    projected = project_to_limits(plan, SETUP)
    assert machine_violations(projected, SETUP) == dict.fromkeys(machine_violations(plan, SETUP), 0)


def test_projection_leaves_a_feasible_plan_alone() -> None:
    plan = project_to_limits(random_plan(0), SETUP)
    again = project_to_limits(plan, SETUP)
    for before, after in zip(vars(plan).values(), vars(again).values(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


def test_a_field_wider_than_the_span_of_a_bank_is_left_alone() -> None:
    left = torch.full((90, 24), -90.0)
    plan = Plan(left, left + 180.0, torch.full((90,), 8.0))
    assert sum(machine_violations(plan, SETUP).values()) == 0
    projected = project_to_limits(plan, SETUP)
    torch.testing.assert_close(projected.left_mm, plan.left_mm)
    torch.testing.assert_close(projected.right_mm, plan.right_mm)


def test_leaves_may_jump_between_arcs() -> None:
    left = torch.full((90, 24), -10.0)
    left[45:] = -60.0
    plan = Plan(left, left + 20.0, torch.full((90,), 8.0))
    torch.testing.assert_close(project_to_limits(plan, SETUP).left_mm, left)


@pytest.mark.parametrize(
    ("limit", "broken"),
    [
        ("leaf_speed", lambda p: replace(p, left_mm=p.left_mm - 40.0 * (torch.arange(90) == 10)[:, None])),
        ("leaf_gap", lambda p: moving(replace(p, right_mm=p.left_mm + 0.2))),
        ("leaf_gap", lambda p: replace(p, right_mm=p.left_mm - 0.2)),
        ("leaf_span", lambda p: replace(p, left_mm=p.left_mm - 160.0 * (torch.arange(24) == 3))),
        ("leaf_position", lambda p: replace(p, right_mm=p.right_mm + 250.0)),
        ("mu_per_deg", lambda p: replace(p, mu=p.mu * 10)),
        ("not_finite", lambda p: replace(p, mu=p.mu * torch.nan)),
    ],
)
def test_each_violation_is_counted(limit: str, broken) -> None:  # type: ignore[no-untyped-def]
    fine = Plan(torch.full((90, 24), -20.0), torch.full((90, 24), 20.0), torch.full((90,), 8.0))
    assert sum(machine_violations(fine, SETUP).values()) == 0
    assert machine_violations(broken(fine), SETUP)[limit] > 0


def test_high_dose_rate_demand_gives_leaves_more_time() -> None:
    left = torch.full((90, 24), -40.0)
    left[1::2] += 20.0  # 20 mm in a step of 8 deg: 15 mm/s at the fastest gantry
    plan = Plan(left, left + 30.0, torch.full((90,), 8.0))
    assert machine_violations(plan, SETUP)["leaf_speed"] == 0
    slow = replace(SETUP, machine=replace(MACHINE, leaf_speed_mm_per_s=10.0))
    assert machine_violations(plan, slow)["leaf_speed"] > 0
    assert machine_violations(replace(plan, mu=torch.full((90,), 25.0)), slow)["leaf_speed"] == 0


def test_a_slower_gantry_gives_leaves_more_time_and_delivery_takes_it() -> None:
    plan = random_plan(0, 150.0)
    twice = replace(SETUP, gantry_slowdown=2.0)
    fast, slow = project_to_limits(plan, SETUP), project_to_limits(plan, twice)
    assert not any(machine_violations(slow, twice).values())
    assert machine_violations(slow, SETUP)["leaf_speed"] > 0
    travel = [float(projected.left_mm.diff(dim=0).abs().amax()) for projected in (fast, slow)]
    assert 1.1 * travel[0] < travel[1] <= 2 * travel[0] * (1 + 1e-4)
    seconds = [float(delivery_seconds(projected, SETUP).sum()) for projected in (fast, slow)]
    assert 1.2 * seconds[0] < seconds[1] < 2.01 * seconds[0]


RIGID = replace(SETUP, machine=replace(MACHINE, interdigitation=False))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("reach_mm", [10.0, 150.0])
def test_projected_plan_violates_nothing_without_interdigitation(seed: int, reach_mm: float) -> None:
    plan = random_plan(seed, reach_mm)
    assert machine_violations(plan, RIGID)["interdigitation"] > 1000
    projected = project_to_limits(plan, RIGID)
    assert not any(machine_violations(projected, RIGID).values())
    again = project_to_limits(projected, RIGID)
    for before, after in zip(vars(projected).values(), vars(again).values(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_without_interdigitation_is_projected_alike_where_it_may_interdigitate(seed: int) -> None:
    """Neighbours that overlap are no reason to move any leaf."""
    plan = project_to_limits(random_plan(seed, 30.0), RIGID)
    for setup in (SETUP, RIGID):
        projected = project_to_limits(plan, setup)
        torch.testing.assert_close(projected.left_mm, plan.left_mm, atol=1e-3, rtol=0)
        torch.testing.assert_close(projected.right_mm, plan.right_mm, atol=1e-3, rtol=0)


def test_closed_pairs_come_to_their_open_neighbours_not_halfway() -> None:
    """Eight pairs parked aside on both ends of an aperture that sways: only the parked ones move."""
    sway = 20.0 * torch.sin(torch.arange(90) / 6)[:, None]
    left, right = (sway - 25).repeat(1, 24), (sway + 15).repeat(1, 24)
    for pairs in (slice(0, 4), slice(20, 24)):
        left[:, pairs] = right[:, pairs] = -70.0
    plan = Plan(left, right, torch.full((90,), 8.0))
    assert machine_violations(plan, RIGID)["interdigitation"] > 0
    projected = project_to_limits(plan, RIGID)
    assert not any(machine_violations(projected, RIGID).values())
    torch.testing.assert_close(projected.left_mm[:, 4:20], left[:, 4:20], atol=1e-3, rtol=0)
    torch.testing.assert_close(projected.right_mm[:, 4:20], right[:, 4:20], atol=1e-3, rtol=0)
    gap_mm = (projected.right_mm - projected.left_mm)[:, :4]
    assert float(gap_mm.max()) <= MACHINE.min_leaf_gap_mm + 1e-3


def test_machine_file_errors_name_the_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no_such_machine"):
        load_machine("no_such_machine")
    path = tmp_path / "broken.yaml"
    shipped = (resources.files("lightning_vmat.plan") / "machines" / "truebeam_millennium120.yaml").read_text()
    for text, message in (
        (shipped + "speed: 3\n", "speed is unknown"),
        (shipped.replace("sad_mm: 1000.0", ""), "sad_mm is missing"),
        (shipped.replace("1000.0", "far"), "sad_mm is 'far'"),
        (shipped.replace("1000.0", "-1.0"), "sad_mm is -1.0"),
        ("[1, 2]", "broken.yaml: expected keys and values"),
        ("name: nothing", "leaf_blocks"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_machine(path)
    assert isinstance(MACHINE, Machine) and len(MACHINE.leaf_edges_mm) == 61
