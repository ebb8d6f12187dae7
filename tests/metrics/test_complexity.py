"""Complexity metrics against apertures worked out by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.metrics.complexity import leaf_pairs_of_rows, plan_complexity
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import load_machine

MACHINE = load_machine("truebeam_millennium120")
ROWS = BeamletGrid((-10.0, -5.0, 0.0, 5.0, 10.0), -50.0, 10.0, 10)  # four leaf pairs of 5 mm
SHUT = 0.5


def complexity(
    left: list[list[float]],
    right: list[list[float]],
    mu: list[float],
    arcs: int = 1,
    rows: BeamletGrid = ROWS,
) -> dict[str, float]:
    plan = Plan(torch.tensor(left), torch.tensor(right), torch.tensor(mu))
    control_points = ControlPoints.from_arcs([Arc(control_points=len(mu) // arcs)] * arcs)
    return plan_complexity(plan, BeamSetup(control_points, rows, MACHINE), fraction_dose_gy=2.0)


def test_static_open_field_is_simplest() -> None:
    metrics = complexity([[-20.0] * 4] * 3, [[20.0] * 4] * 3, [1.0, 2.0, 3.0])
    assert metrics["mcs_v"] == pytest.approx(1.0)
    assert metrics["leaf_travel_mm"] == 0
    assert metrics["aperture_area_cm2"] == pytest.approx(8.0)  # 40 x 20 mm
    assert metrics["edge_metric_per_mm"] == pytest.approx(2 * 40 / 800)
    assert metrics["mu"] == pytest.approx(6.0)
    assert metrics["mu_per_gy"] == pytest.approx(3.0)


def test_staircase_by_hand() -> None:
    # Left bank -20 -10 -10 0: range 20, steps 10 0 10 -> mean(0.5, 1, 0.5) = 2/3. Right bank straight: 1.
    metrics = complexity([[-20.0, -10.0, -10.0, 0.0]], [[20.0] * 4], [5.0])
    assert metrics["mcs_v"] == pytest.approx(2 / 3)
    area = (40 + 30 + 30 + 20) * 5.0
    assert metrics["aperture_area_cm2"] == pytest.approx(area / 100)
    assert metrics["edge_metric_per_mm"] == pytest.approx((40 + 10 + 0 + 10 + 20) / area)


def test_area_variability_is_weighted_with_mu() -> None:
    # Straight banks; half open at 1 MU, fully open at 3 MU: (1 * 0.5 + 3 * 1) / 4.
    metrics = complexity([[-20.0] * 4, [-20.0] * 4], [[0.0] * 4, [20.0] * 4], [1.0, 3.0])
    assert metrics["mcs_v"] == pytest.approx(3.5 / 4)
    assert metrics["aperture_area_cm2"] == pytest.approx((1 * 4.0 + 3 * 8.0) / 4)
    assert metrics["leaf_travel_mm"] == pytest.approx(10.0)  # one bank 20 mm, the other 0


def test_widest_opening_joins_control_points() -> None:
    # Two halves that never open together: each is half of what opens over the arc.
    metrics = complexity([[-20.0] * 4, [0.0] * 4], [[0.0] * 4, [20.0] * 4], [1.0, 1.0])
    assert metrics["mcs_v"] == pytest.approx(0.5)


def test_separate_openings_show_all_their_sides() -> None:
    # Neighbouring pairs that do not overlap: both lengths on both sides.
    left = [[-30.0, 10.0, -SHUT / 2, -SHUT / 2]]
    right = [[-10.0, 30.0, SHUT / 2, SHUT / 2]]
    metrics = complexity(left, right, [1.0])
    assert metrics["edge_metric_per_mm"] == pytest.approx((20 + 20 + 20 + 20) / (40 * 5))


def test_closed_pairs_do_not_count() -> None:
    closed = complexity([[-20.0, -20.0, 7.0, 9.0]], [[20.0, 20.0, 7.0 + SHUT, 9.0 + SHUT]], [1.0])
    assert closed["mcs_v"] == pytest.approx(1.0)
    assert closed["aperture_area_cm2"] == pytest.approx(4.0)


def test_travel_between_arcs_does_not_count() -> None:
    left, right = [[-20.0] * 4] * 2 + [[10.0] * 4] * 2, [[0.0] * 4] * 2 + [[30.0] * 4] * 2
    assert complexity(left, right, [1.0] * 4, arcs=2)["leaf_travel_mm"] == 0
    assert complexity(left, right, [1.0] * 4, arcs=2)["mcs_v"] == pytest.approx(1.0)
    assert complexity(left, right, [1.0] * 4, arcs=1)["leaf_travel_mm"] == pytest.approx(30.0)


def test_ganged_rows_count_as_their_leaf_pairs() -> None:
    rows = BeamletGrid((-20.0, -10.0, 0.0, 10.0), -50.0, 10.0, 10)
    fine = BeamletGrid((-20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0), -50.0, 10.0, 10)
    assert leaf_pairs_of_rows(rows, MACHINE).tolist() == [2, 2, 2]
    left, right = [[-20.0, -10.0, 0.0], [-5.0, -9.0, 0.0]], [[20.0, 25.0, 30.0], [20.0, 15.0, 20.0]]
    doubled = (
        [[x for x in row for _ in range(2)] for row in left],
        [[x for x in row for _ in range(2)] for row in right],
    )
    assert complexity(left, right, [1.0, 2.0], rows=rows) == pytest.approx(complexity(*doubled, [1.0, 2.0], rows=fine))


def test_scales_and_bounds_on_random_apertures() -> None:
    generator = torch.Generator().manual_seed(0)
    left = -40 * torch.rand(30, 4, generator=generator)
    right = 40 * torch.rand(30, 4, generator=generator) + 1
    mu = torch.rand(30, generator=generator) + 0.1
    once = complexity(left.tolist(), right.tolist(), mu.tolist())
    twice = complexity(left.tolist(), right.tolist(), (2 * mu).tolist())
    assert 0 < once["mcs_v"] < 1
    for name in ("mcs_v", "edge_metric_per_mm", "leaf_travel_mm", "aperture_area_cm2"):
        assert twice[name] == pytest.approx(once[name], rel=1e-5)
    assert twice["mu"] == pytest.approx(2 * once["mu"], rel=1e-5)
