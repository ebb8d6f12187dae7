"""What jaws and rest excuse, how long a delivery takes, and closed pairs that the projection leaves closed."""

from dataclasses import replace

import pytest
import torch

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.machine import load_machine

MACHINE = load_machine("truebeam_millennium120")
GRID = BeamletGrid(tuple(map(float, range(-60, 61, 5))), -60.0, 5.0, 24, jaws_mm=(-40.0, 40.0, -40.0, 40.0))
ARCS = ControlPoints.from_arcs([Arc(180, 180, 45), Arc(180, 180, 45, direction="counterclockwise")])
SETUP = BeamSetup(ARCS, GRID, MACHINE)
BEHIND_Y, SEEN = 1, 12  # rows
COUNT = len(ARCS)


def open_plan() -> Plan:
    return Plan(torch.full((COUNT, 24), -20.0), torch.full((COUNT, 24), 20.0), torch.full((COUNT,), 8.0))


def with_pair(plan: Plan, pair: int, left_mm: torch.Tensor, right_mm: torch.Tensor) -> Plan:
    left, right = plan.left_mm.clone(), plan.right_mm.clone()
    left[:, pair], right[:, pair] = left_mm, right_mm
    return replace(plan, left_mm=left, right_mm=right)


def broken(plan: Plan) -> dict[str, int]:
    return {name: count for name, count in machine_violations(plan, SETUP).items() if count}


SWING = 10.0 * torch.sin(torch.arange(COUNT) / 3.0)
JUMPS = 60.0 * (torch.arange(COUNT) % 2)


@pytest.mark.parametrize(
    ("pair", "place_mm", "faults"),
    [
        (BEHIND_Y, SWING, []),
        (BEHIND_Y, JUMPS, []),
        (SEEN, SWING - 60, []),  # behind X1
        (SEEN, JUMPS + 45, []),  # behind X2
        (SEEN, torch.zeros(COUNT), []),  # closed at rest
        (SEEN, SWING, ["leaf_gap"]),
        (SEEN, JUMPS, ["leaf_gap", "leaf_speed"]),
        (SEEN, 2 * JUMPS - 60, ["leaf_speed"]),  # from behind X1 to behind X2, through the field
    ],
)
def test_closed_pairs_that_jaws_or_rest_excuse(pair: int, place_mm: torch.Tensor, faults: list[str]) -> None:
    assert sorted(broken(with_pair(open_plan(), pair, place_mm, place_mm))) == faults


def test_without_x_jaws_the_edges_of_the_field_excuse_nothing() -> None:
    bare = replace(SETUP, machine=replace(MACHINE, x_jaws=False))
    jumping, behind_y = (with_pair(open_plan(), pair, -70 - JUMPS, -70 - JUMPS) for pair in (SEEN, BEHIND_Y))
    assert broken(jumping) == {}
    assert machine_violations(jumping, bare)["leaf_gap"] == COUNT
    assert machine_violations(jumping, bare)["leaf_speed"] == 2 * (COUNT - 2)  # banks, steps within the two arcs
    assert not any(machine_violations(behind_y, bare).values())
    assert float(delivery_seconds(jumping, SETUP).sum()) == pytest.approx(120.0, abs=1e-3)
    assert float(delivery_seconds(jumping, bare).sum()) > 200
    assert not any(machine_violations(project_to_limits(jumping, bare), bare).values())


@pytest.mark.parametrize("pair", [BEHIND_Y, SEEN])
def test_jaws_excuse_neither_crossed_tips_nor_span_position_or_interdigitation(pair: int) -> None:
    crossed = with_pair(open_plan(), pair, torch.tensor(1.0), torch.tensor(-1.0))
    assert broken(crossed) == {"leaf_gap": COUNT}
    far = with_pair(open_plan(), pair, torch.tensor(-205.0), torch.tensor(-205.0))
    assert broken(far) == {"leaf_span": 2 * COUNT, "leaf_position": 2 * COUNT}
    rigid = replace(SETUP, machine=replace(MACHINE, interdigitation=False))
    beside = with_pair(open_plan(), pair, torch.tensor(30.0), torch.tensor(40.0))
    assert machine_violations(beside, rigid)["interdigitation"] == 2 * COUNT


def test_leaves_at_rest_may_need_a_gap_too() -> None:
    apart = replace(SETUP, machine=replace(MACHINE, min_leaf_gap_mm=5.0, min_still_leaf_gap_mm=4.0))
    for gap_mm, faults in ((4.0, 0), (3.9, COUNT)):
        plan = with_pair(open_plan(), SEEN, torch.tensor(-gap_mm), torch.tensor(0.0))
        assert machine_violations(plan, apart)["leaf_gap"] == faults
        assert sum(machine_violations(project_to_limits(plan, apart), apart).values()) == 0
    with pytest.raises(ValueError, match="min_still_leaf_gap_mm is 2"):
        replace(MACHINE, min_still_leaf_gap_mm=2.0)


def test_delivery_takes_the_gantry_the_dose_rate_or_the_slowest_leaf() -> None:
    """Two arcs of 360 degrees at 6 degrees a second; 8 degrees a sector, 10 MU a second, 22.5 mm a second."""
    plan = open_plan()
    seconds = delivery_seconds(plan, SETUP)
    assert len(seconds) == COUNT
    assert float(delivery_seconds(plan, SETUP).sum()) == pytest.approx(120.0, abs=1e-3)
    rich = replace(plan, mu=plan.mu + 20.0 * (torch.arange(COUNT) == 10))
    assert float(delivery_seconds(rich, SETUP).sum()) == pytest.approx(120.0 + 2.8 - 8 / 6, abs=1e-3)
    left = plan.left_mm.clone()
    left[45:] -= 70.0  # between arcs it takes no beam
    assert float(delivery_seconds(replace(plan, left_mm=left), SETUP).sum()) == pytest.approx(120.0, abs=1e-3)
    for pair, late_s in ((BEHIND_Y, 0.0), (SEEN, 20 / 22.5 - 8 / 6 / 2)):
        late = with_pair(plan, pair, -20.0 - 45.0 * (torch.arange(COUNT) > 60), torch.tensor(20.0))
        expected_s = delivery_seconds(plan, SETUP)
        expected_s[60] += late_s  # the jaw at -40 mm hides what comes after the first 20 mm
        torch.testing.assert_close(delivery_seconds(late, SETUP), expected_s)


def test_a_leaf_that_is_late_slows_the_gantry_of_plans_made_elsewhere() -> None:
    late = with_pair(open_plan(), SEEN, -20.0 - JUMPS, torch.tensor(20.0))
    assert machine_violations(late, SETUP)["leaf_speed"] == 88
    assert not any(machine_violations(late, SETUP, gantry_may_slow=True).values())
    assert float(delivery_seconds(late, SETUP).sum()) == pytest.approx(
        88 * (20 / 22.5 + 8 / 6 / 2) + 4 * 8 / 6 / 2, rel=1e-5
    )
    assert "leaf_speed" not in machine_violations(late, SETUP, gantry_may_slow=True)


@pytest.mark.parametrize("shake_mm", [0.0, 2.0])
@pytest.mark.parametrize("pair", [BEHIND_Y, SEEN])
def test_projection_does_not_reopen_pairs_closed_at_rest(pair: int, shake_mm: float) -> None:
    shake = shake_mm * torch.rand((2, COUNT), generator=torch.Generator().manual_seed(0))
    closed = with_pair(open_plan(), pair, 7.0 + shake[0], 7.0 - shake[1])
    projected = project_to_limits(closed, SETUP)
    assert broken(projected) == {}
    torch.testing.assert_close(projected.left_mm[:, pair], projected.right_mm[:, pair])
    assert float(projected.left_mm[:45, pair].diff().abs().max()) == 0
    before = with_pair(open_plan(), pair, torch.tensor(7.0), torch.tensor(7.0)).fluence_mu(SETUP).sum(dim=(0, 2))
    torch.testing.assert_close(projected.fluence_mu(SETUP).sum(dim=(0, 2)), before, rtol=1e-4, atol=0)
    again = project_to_limits(projected, SETUP)
    torch.testing.assert_close(again.left_mm, projected.left_mm)
    if not shake_mm:
        torch.testing.assert_close(projected.left_mm, closed.left_mm)
        torch.testing.assert_close(projected.right_mm, closed.right_mm)


@pytest.mark.parametrize(("pair", "gap_mm"), [(BEHIND_Y, 0.0), (SEEN, MACHINE.min_leaf_gap_mm)])
def test_a_pair_closed_on_the_move_lets_the_least_gap_through_at_most(pair: int, gap_mm: float) -> None:
    """Behind jaws nothing."""
    closed = with_pair(open_plan(), pair, SWING, SWING)
    projected = project_to_limits(closed, SETUP)
    assert broken(projected) == {}
    before, after = (plan.fluence_mu(SETUP) * GRID.inside_jaws for plan in (closed, projected))
    added_mu_mm = (after - before).sum(dim=-1) * GRID.beamlet_width_mm
    assert float(added_mu_mm.max()) <= 8.0 * gap_mm + 1e-3


def test_a_pair_that_opens_is_reopened_by_the_least_gap_at_most() -> None:
    """Closed and on the move in one half of the arc, open in the other."""
    opening = 30.0 * (torch.arange(COUNT) % 45 > 25)
    start = with_pair(open_plan(), SEEN, SWING - opening / 2, SWING + opening / 2)
    projected = project_to_limits(start, SETUP)
    assert broken(projected) == {}
    half = torch.arange(COUNT) % 45 < 20  # far from where it opens: the speed limit changes nothing here
    gap_mm = (projected.right_mm - projected.left_mm)[half, SEEN]
    torch.testing.assert_close(gap_mm, torch.full_like(gap_mm, MACHINE.min_leaf_gap_mm), atol=1e-3, rtol=0)
    added_mu = (projected.fluence_mu(SETUP) - start.fluence_mu(SETUP))[half].sum(dim=-1) * GRID.beamlet_width_mm
    assert float(added_mu.max()) <= 8.0 * MACHINE.min_leaf_gap_mm + 1e-3


def test_pairs_that_the_span_of_a_bank_does_not_let_rest_move() -> None:
    """Behind the jaws at rest on one side, while the field swings far to the other in the course of the arc."""
    swing = 115.0 * torch.sin(torch.pi * (torch.arange(COUNT) % 45) / 44)
    plan = Plan((swing - 20)[:, None].repeat(1, 24), (swing + 20)[:, None].repeat(1, 24), torch.full((COUNT,), 8.0))
    plan = with_pair(plan, BEHIND_Y, torch.tensor(-70.0), torch.tensor(-70.0))
    assert broken(plan)["leaf_span"] > 0
    projected = project_to_limits(plan, SETUP)
    assert broken(projected) == {}
    assert float((projected.right_mm - projected.left_mm)[:, BEHIND_Y].min()) == pytest.approx(0.5, abs=1e-3)
