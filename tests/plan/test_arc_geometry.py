"""IEC 61217 as the patient sees it: beam axes, arcs and beam's-eye-view projection."""

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch

from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid, fit_beamlet_grid, project_to_bev
from lightning_vmat.plan.machine import load_machine

SAD_MM = 1000.0
MACHINE = "truebeam_millennium120"


def at(gantry: float, collimator: float = 0.0, couch: float = 0.0) -> ControlPoints:
    arc = Arc(gantry - 1, gantry + 1, control_points=1, collimator_deg=collimator, couch_deg=couch)
    return ControlPoints.from_arcs([arc])


@pytest.mark.parametrize(
    ("gantry", "source_lps"),
    [(0, (0, -1, 0)), (90, (1, 0, 0)), (180, (0, 1, 0)), (270, (-1, 0, 0))],
    ids=["anterior", "patient left", "posterior", "patient right"],
)
def test_source_stands_where_iec_says(gantry: float, source_lps: tuple[float, ...]) -> None:
    torch.testing.assert_close(at(gantry).beam_axes()[0, 2], torch.tensor(source_lps).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("angles", [(0, 0, 0), (37, 15, 0), (200, 350, 30), (311, 90, 345)])
def test_beam_axes_are_a_right_handed_frame(angles: tuple[float, float, float]) -> None:
    axes = at(*angles).beam_axes()[0]
    torch.testing.assert_close(axes @ axes.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.cross(axes[0], axes[1]), axes[2], atol=1e-6, rtol=0)


def test_collimator_turns_counterclockwise_seen_from_the_source() -> None:
    head = torch.tensor([[0.0, 0.0, 10.0]])  # a point towards the head lies at +y_b at collimator 0
    bev, _ = project_to_bev(head, at(0), (0, 0, 0), SAD_MM)
    torch.testing.assert_close(bev[0, 0], torch.tensor([0.0, 10.0]))
    bev, _ = project_to_bev(head, at(0, collimator=90), (0, 0, 0), SAD_MM)
    torch.testing.assert_close(bev[0, 0], torch.tensor([10.0, 0.0]), atol=1e-5, rtol=0)


def test_couch_turns_the_patient_counterclockwise_seen_from_above() -> None:
    left = torch.tensor([[10.0, 0.0, 0.0]])  # with the table at +90 the patient's left points to the gantry, +y_b
    bev, _ = project_to_bev(left, at(0, couch=90), (0, 0, 0), SAD_MM)
    torch.testing.assert_close(bev[0, 0], torch.tensor([0.0, 10.0]), atol=1e-5, rtol=0)


def test_projection_magnifies_with_nearness_to_the_source() -> None:
    nearer = torch.tensor([[20.0, -500.0, 0.0]])  # half way to the source at gantry 0
    bev, distance_mm = project_to_bev(nearer, at(0), (0, 0, 0), SAD_MM)
    torch.testing.assert_close(bev[0, 0], torch.tensor([40.0, 0.0]))
    torch.testing.assert_close(distance_mm[0], torch.tensor([500.0]))


def test_full_turn_has_control_points_in_the_middle_of_equal_sectors() -> None:
    points = ControlPoints.from_arcs([Arc(180, 180, 90)])
    torch.testing.assert_close(points.gantry_deg[[0, 44, 45, 89]], torch.tensor([182.0, 358.0, 2.0, 178.0]))
    assert float(points.sector_deg.sum()) == pytest.approx(360.0)


def test_partial_counterclockwise_arc() -> None:
    arc = Arc(30, 330, 6, direction="counterclockwise")
    assert arc.span_deg == -60 and not arc.is_full_turn
    torch.testing.assert_close(
        ControlPoints.from_arcs([arc]).gantry_deg, torch.tensor([25.0, 15.0, 5.0, 355.0, 345.0, 335.0])
    )


def test_bad_arcs_are_refused() -> None:
    with pytest.raises(ValueError, match="0 control points"):
        Arc(control_points=0)
    with pytest.raises(ValueError, match="sideways"):
        Arc(direction="sideways")
    with pytest.raises(ValueError, match="at least one arc"):
        ControlPoints.from_arcs([])
    for name in ("gantry_start_deg", "gantry_stop_deg", "collimator_deg", "couch_deg"):
        with pytest.raises(ValueError, match=f"arc: {name} is nan, expected a finite number"):
            replace(Arc(), **{name: float("nan")})  # type: ignore[arg-type]


def shipped_machine() -> str:
    return (resources.files("lightning_vmat.plan") / "machines" / f"{MACHINE}.yaml").read_text()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("sad_mm", "0", "a number > 0"),
        ("sad_mm", "-1", "a number > 0"),
        ("sad_mm", "true", "a finite number"),
        ("sad_mm", ".nan", "a finite number"),
        ("leaf_speed_mm_per_s", "0", "a number > 0"),
        ("leaf_speed_mm_per_s", "fast", "a finite number"),
        ("gantry_speed_deg_per_s", "0.0", "a number > 0"),
        ("dose_rate_mu_per_s", ".inf", "a finite number"),
        ("max_leaf_span_mm", "-150", "a number > 0"),
        ("max_leaf_position_mm", "[200]", "a finite number"),
        ("min_leaf_gap_mm", "-0.5", "a number >= 0"),
        ("dosimetric_leaf_gap_mm", "-2", "a number >= 0"),
        ("leaf_transmission", "1", "a fraction below 1"),
        ("leaf_transmission", "-0.1", "a number >= 0"),
        ("min_mu_per_deg", "3.5", "less than max_mu_per_deg"),
        ("interdigitation", "maybe", "true or false"),
        ("interdigitation", "1", "true or false"),
        ("name", "3", "text"),
        ("beam_model", "", "text"),
        ("leaf_blocks", "[[0, 5.0]]", "a list of"),
        ("leaf_blocks", "[[10, -5.0]]", "a list of"),
        ("leaf_blocks", "[[10.5, 5.0]]", "a list of"),
        ("leaf_blocks", "[[10, wide]]", "a list of"),
        ("leaf_blocks", "[10, 5.0]", "a list of"),
        ("leaf_blocks", "[]", "a list of"),
    ],
)
def test_wrong_machine_values_are_one_line(tmp_path: Path, key: str, value: str, expected: str) -> None:
    path = tmp_path / "linac.yaml"
    path.write_text(re.sub(rf"^{key}:.*\n(  - .*\n)*", f"{key}: {value}\n", shipped_machine(), flags=re.MULTILINE))
    with pytest.raises(ValueError, match=rf"linac\.yaml: {key} is .*, expected {expected}") as error:
        load_machine(path)
    assert "\n" not in str(error.value)


def test_whole_numbers_in_a_machine_file_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "linac.yaml"
    path.write_text(shipped_machine().replace("sad_mm: 1000.0", "sad_mm: 1000"))
    sad_mm = load_machine(path).sad_mm
    assert sad_mm == 1000.0 and isinstance(sad_mm, float)


def test_leaf_edges_ascend() -> None:
    with pytest.raises(ValueError, match=r"leaf_edges_mm is .* ascending"):
        replace(load_machine(MACHINE), leaf_edges_mm=(0.0, 5.0, 5.0))


def test_beamlets_are_finite() -> None:
    with pytest.raises(ValueError, match="beamlets: beamlet_start_mm is nan"):
        BeamletGrid((0.0, 5.0), float("nan"), 5.0, 4)


def test_fitted_grid_covers_the_target_with_whole_leaf_pairs() -> None:
    machine = load_machine("truebeam_millennium120")
    points = ControlPoints.from_arcs([Arc(180, 180, 36, collimator_deg=15)])
    target = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([80.0, 50.0, 130.0])
    grid = fit_beamlet_grid(target, points, (40.0, 25.0, 65.0), machine)
    bev, _ = project_to_bev(target, points, (40.0, 25.0, 65.0), SAD_MM)
    assert grid.beamlet_start_mm <= float(bev[..., 0].min()) and grid.beamlet_stop_mm >= float(bev[..., 0].max())
    assert grid.leaf_edges_mm[0] <= float(bev[..., 1].min()) and grid.leaf_edges_mm[-1] >= float(bev[..., 1].max())
    assert set(grid.leaf_edges_mm) <= set(machine.leaf_edges_mm)
    assert all(length % 4 == 0 for length in grid.shape)


def test_target_larger_than_the_field_is_refused() -> None:
    far = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 450.0]])
    with pytest.raises(ValueError, match="across the leaves"):
        fit_beamlet_grid(far, at(0), (0, 0, 0), load_machine("truebeam_millennium120"))
