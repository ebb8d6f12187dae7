"""Arcs of an RTPLAN: cut finely, parted where the gantry turns back, with all their monitor units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from small_patient import LEAF_MM, arc, write_plan

from lightning_vmat.cases.dicom.rtplan import RtPlan, read_rtplan

SAME_FOLDER = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(folder: Path, beam: Dataset, largest_deg: float = 30.0) -> RtPlan:
    return read_rtplan(write_plan(folder, [beam]), largest_sector_deg=largest_deg)


def angles(first_deg: float, step_deg: float, points: int) -> list[float]:
    return [first_deg + step_deg * k for k in range(points)]


@SAME_FOLDER
@given(
    points=st.integers(2, 9),
    span_deg=st.floats(20, 360),
    largest_deg=st.sampled_from([2.0, 4.0, 10.0, 30.0]),
    clockwise=st.booleans(),
    wider_mm=st.floats(-15, 15),
)
def test_a_sparse_arc_is_cut_finely_and_its_leaves_move_evenly(
    tmp_path: Path, points: int, span_deg: float, largest_deg: float, clockwise: bool, wider_mm: float
) -> None:
    step = span_deg / (points - 1) * (1 if clockwise else -1)
    beam = arc(1, np.round(angles(181.0, step, points), 4), "CW" if clockwise else "CC", wider_mm)
    plan = read(tmp_path, beam, largest_deg)
    [found], [motion] = plan.arcs, plan.motions
    sectors = found.control_points
    assert abs(found.span_deg) == pytest.approx(span_deg, abs=0.01)
    assert found.direction == ("clockwise" if clockwise else "counterclockwise")
    assert span_deg / sectors <= largest_deg + 0.02
    assert sectors % (points - 1) == 0 and span_deg / sectors >= min(largest_deg, span_deg / (points - 1)) / 2 - 0.02
    np.testing.assert_allclose(motion.mu, 500.0 / sectors, rtol=1e-3)
    middles = (np.arange(sectors) + 0.5) / sectors
    np.testing.assert_allclose(motion.right_mm, np.tile(LEAF_MM + wider_mm * middles, (60, 1)).T, atol=1e-3)
    np.testing.assert_allclose(motion.left_mm, -motion.right_mm, atol=1e-9)


def test_an_arc_of_few_points_is_that_of_many(tmp_path: Path) -> None:
    sparse = read(tmp_path, arc(1, angles(181, 358, 2), wider_mm=9.0), 2.0)
    dense = read(tmp_path, arc(1, angles(181, 2, 180), wider_mm=9.0), 2.0)
    assert sparse.arcs == dense.arcs
    np.testing.assert_allclose(sparse.motions[0].right_mm, dense.motions[0].right_mm, atol=1e-3)
    np.testing.assert_allclose(sparse.motions[0].mu, dense.motions[0].mu, atol=1e-4)


def test_nearly_a_full_turn_in_two_points_is_no_tremble(tmp_path: Path) -> None:
    [found] = read(tmp_path, arc(1, [180.1, 179.9])).arcs
    assert found.span_deg == pytest.approx(359.8) and found.control_points == 12


def spans(plan: RtPlan) -> list[float]:
    return [round(one.span_deg, 2) for one in plan.arcs]


def test_there_and_back_are_two_arcs(tmp_path: Path) -> None:
    there = angles(200, 10, 11)
    beam = arc(1, [*there, *there[-2::-1]], ["CW"] * 10 + ["CC"] * 10 + ["NONE"], wider_mm=10.0)
    plan = read(tmp_path, beam)
    assert spans(plan) == [100.0, -100.0]
    assert [motion.mu.sum() for motion in plan.motions] == pytest.approx([250.0, 250.0])
    assert plan.motions[0].right_mm.max() < plan.motions[1].right_mm.min()
    assert (plan.arcs[1].gantry_start_deg, plan.arcs[1].gantry_stop_deg) == (300.0, 200.0)


def test_where_the_gantry_stands_at_the_turn_nothing_is_lost(tmp_path: Path) -> None:
    there = angles(200, 10, 6)
    words = ["CW"] * 5 + ["NONE"] + ["CC"] * 5 + ["NONE"]
    plan = read(tmp_path, arc(1, [*there, *there[::-1]], words))
    assert spans(plan) == [50.0, -50.0]
    assert sum(motion.mu.sum() for motion in plan.motions) == pytest.approx(500.0)


def test_a_way_back_without_monitor_units_is_no_arc(tmp_path: Path) -> None:
    there = angles(200, 10, 6)
    beam = arc(1, [*there, *there[-2::-1], *there[1:]], ["CW"] * 5 + ["CC"] * 5 + ["CW"] * 5 + ["NONE"])
    for index, point in enumerate(beam.ControlPointSequence):
        point.CumulativeMetersetWeight = min(index, 5) * 0.1 + max(index - 10, 0) * 0.1
    plan = read(tmp_path, beam)
    assert spans(plan) == [50.0, 50.0]
    assert [motion.mu.sum() for motion in plan.motions] == pytest.approx([250.0, 250.0])


@pytest.mark.parametrize("seed", range(5))
def test_a_gantry_as_it_was_logged_trembles(tmp_path: Path, seed: int) -> None:
    """Steps of 0.4 degrees with noise of 0.15 degrees go back now and then; the arc is the same."""
    rng = np.random.default_rng(seed)
    logged = np.array(angles(181, 0.4, 400)) + rng.normal(0, 0.15, 400).clip(-0.3, 0.3)
    assert (np.diff(logged) < 0).any()
    plan = read(tmp_path, arc(1, logged.round(3)))
    [found], [motion] = plan.arcs, plan.motions
    assert found.span_deg == pytest.approx(logged[-1] - logged[0], abs=0.01)
    assert motion.mu.sum() == pytest.approx(500.0)
    assert found.span_deg / found.control_points >= 0.5
    coarse = motion.mu[: len(motion.mu) // 10 * 10].reshape(-1, 10).sum(axis=1)
    np.testing.assert_allclose(coarse, coarse.mean(), rtol=0.15)


def test_monitor_units_at_a_standing_end_belong_to_the_last_sector(tmp_path: Path) -> None:
    beam = arc(1, [*angles(181, 10, 10), 271, 271])
    plan = read(tmp_path, beam)
    assert spans(plan) == [90.0]
    np.testing.assert_allclose(plan.motions[0].mu, [500 / 11] * 8 + [3 * 500 / 11], rtol=1e-6)


def message(folder: Path, beam: Dataset) -> str:
    with pytest.raises(ValueError) as error:
        read(folder, beam)
    return str(error.value)


@pytest.mark.parametrize(
    ("gantry_deg", "senses", "named"),
    [
        (angles(181, -4, 20), "CW", "turns by 6764.0 degrees in one direction from control point 0 to 19"),
        (angles(181, 40, 12), "CW", "turns by 440.0 degrees"),
        (angles(181, 10, 6), "NONE", "control point 0: gantry turns by 10.0 degrees without a direction"),
        ([181, 181], "CW", "gantry stands"),
        (angles(30, 0, 8), "NONE", "gantry stands (a static or step-and-shoot field)"),
        (angles(181, 10, 6), "UP", "control point 0: GantryRotationDirection UP, expected CW, CC or NONE"),
    ],
)
def test_gantries_that_make_no_arc_are_named(
    tmp_path: Path, gantry_deg: Sequence[float], senses: str, named: str
) -> None:
    assert named in message(tmp_path, arc(1, gantry_deg, senses))


def test_leaves_that_shape_the_dose_while_the_gantry_stands_are_refused(tmp_path: Path) -> None:
    beam = arc(1, [*angles(181, 10, 6), 231, 231, *angles(241, 10, 6)], wider_mm=40.0)
    assert "15% of the monitor units while the gantry stands and leaves move" in message(tmp_path, beam)
    still = arc(1, [*angles(181, 10, 6), 231, 231, *angles(241, 10, 6)])
    assert read(tmp_path, still).motions[0].mu.sum() == pytest.approx(500.0)


@pytest.mark.parametrize(("last", "passes"), [("0.999999", True), ("0.99995", True), ("0.98", False), ("1.02", False)])
def test_the_last_weight_may_be_rounded(tmp_path: Path, last: str, passes: bool) -> None:
    beam = arc(1, angles(181, 10, 6))
    beam.ControlPointSequence[-1].CumulativeMetersetWeight = last
    if passes:
        assert read(tmp_path, beam).motions[0].mu.sum() == pytest.approx(500.0, abs=1e-9)
    else:
        assert "expected values ascending from 0 to 1" in message(tmp_path, beam)


@pytest.mark.parametrize("mu", [[300.0, None], [300.0, 0.0], [None, 300.0]])
def test_an_arc_without_monitor_units_is_refused(tmp_path: Path, mu: list[float | None]) -> None:
    beams = [arc(1, angles(181, 10, 6)), arc(2, angles(231, -10, 6), "CC")]
    number = mu.index(300.0) ^ 1
    with pytest.raises(ValueError, match=f"beam {number + 1} has an MLC and no Beam Meterset"):
        read_rtplan(write_plan(tmp_path, beams, mu=mu))


def test_an_arc_that_the_fraction_group_forgets_is_refused(tmp_path: Path) -> None:
    def forget(data: Dataset) -> None:
        group = data.FractionGroupSequence[0]
        group.ReferencedBeamSequence, group.NumberOfBeams = group.ReferencedBeamSequence[:1], 1

    beams = [arc(1, angles(181, 10, 6)), arc(2, angles(231, -10, 6), "CC")]
    with pytest.raises(ValueError, match="beam 2 has an MLC and no Beam Meterset"):
        read_rtplan(write_plan(tmp_path, beams, change=forget))


def setup_field(number: int, kind: str, *, mlc: bool) -> Dataset:
    beam = arc(number, angles(0, 0, 2), "NONE")
    beam.TreatmentDeliveryType, beam.BeamType = kind, "STATIC"
    if not mlc:
        beam.BeamLimitingDeviceSequence = beam.BeamLimitingDeviceSequence[:2]
    return beam


@pytest.mark.parametrize(
    ("kind", "mlc", "mu"),
    [
        ("SETUP", True, None),
        ("SETUP", True, 0.0),
        ("SETUP", False, 2.0),
        ("TREATMENT", False, None),
        ("OPEN_PORTFILM", True, None),
    ],
)
def test_setup_fields_are_left_out(tmp_path: Path, kind: str, mlc: bool, mu: float | None) -> None:
    beams = [setup_field(1, kind, mlc=mlc), arc(2, angles(181, 10, 6))]
    plan = read_rtplan(write_plan(tmp_path, beams, mu=[mu, 500.0]))
    assert spans(plan) == [50.0]


def test_a_setup_field_that_would_give_dose_is_refused(tmp_path: Path) -> None:
    beams = [setup_field(1, "TRMT_PORTFILM", mlc=True), arc(2, angles(181, 10, 6))]
    with pytest.raises(ValueError, match="beam 1: TRMT_PORTFILM field with an MLC and 4 MU"):
        read_rtplan(write_plan(tmp_path, beams, mu=[4.0, 500.0]))


def test_the_arcs_of_a_beam_can_be_cut_otherwise(tmp_path: Path) -> None:
    there = angles(200, 10, 11)
    path = write_plan(tmp_path, [arc(1, [*there, *there[-2::-1]], ["CW"] * 10 + ["CC"] * 10 + ["NONE"])])
    plan = read_rtplan(path, [4, 5])
    assert [len(motion.mu) for motion in plan.motions] == [4, 5]
    with pytest.raises(ValueError, match="2 arcs, expected 1"):
        read_rtplan(path, [4])
