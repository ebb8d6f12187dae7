"""Figures show where things are: orientation, isocentre, contours, leaves, curves."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from planned_case import make_case, make_plan

from lightning_vmat.export.content import ReportContent
from lightning_vmat.export.figures.aperture_film import aperture_film
from lightning_vmat.export.figures.delivery import delivery
from lightning_vmat.export.figures.dose_slices import SlicedCase, dose_planes
from lightning_vmat.export.figures.dvh import cumulative_dvh, curves_drawing, goal_place
from lightning_vmat.export.figures.palette import structure_styles
from lightning_vmat.export.figures.paths import contour_path
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.planning.planner import PlanResult, Trace


def corners(path: str) -> np.ndarray:
    """Points of a path of relative quadratic curves."""
    points = []
    for start, steps in re.findall(r"M(-?\d+ -?\d+)q([-\d ]+)z", path):
        here = np.array([int(number) for number in start.split()])
        for step in np.array(steps.split(), dtype=int).reshape(-1, 2, 2):
            here = here + step[1]
            points.append(here)
    return np.array(points)


def test_contour_is_where_the_mask_is_and_closed() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:15, 20:32] = True
    path = contour_path(mask, 0.5, (2.0, 3.0))
    points = corners(path)
    np.testing.assert_allclose(points.min(axis=0), [20 * 20, 5 * 30], atol=1)
    np.testing.assert_allclose(points.max(axis=0), [32 * 20, 15 * 30], atol=1)
    start = [int(number) for number in re.findall(r"M(-?\d+) (-?\d+)", path)[0]]
    assert points[-1].tolist() == start


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 3)])
def test_small_structures_keep_their_contour(shape: tuple[int, int]) -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[4 : 4 + shape[0], 4 : 4 + shape[1]] = True
    assert contour_path(mask, 0.5, (1.0, 1.0))
    assert contour_path(np.zeros((9, 9)), 0.5, (1.0, 1.0)) == ""


def test_slices_stand_as_a_reader_expects(content: ReportContent) -> None:
    case = content.case
    axial, coronal, sagittal = dose_planes(case, content.evaluation.dose_gy, structure_styles(case))
    assert [plane.letters for plane in (axial, coronal, sagittal)] == ["ARPL", "HRFL", "HAFP"]
    middle = [plane.slices[plane.central] for plane in (axial, coronal, sagittal)]
    assert all(abs(view.position_mm) <= 2.5 for view in middle)

    def place(view: int, name: str) -> np.ndarray:
        return corners(middle[view].contours[name]).mean(axis=0) - (axial, coronal, sagittal)[view].isocentre

    assert place(0, "FemoralHeadLeft")[0] > 500 > -500 > place(0, "FemoralHeadRight")[0]  # patient's left: right side
    assert place(0, "Rectum")[1] > 200  # posterior: below
    assert place(1, "FemoralHeadLeft")[0] > 500
    assert place(2, "Bladder")[1] < -100 and place(2, "Bladder")[0] < -100  # towards the head: up; anterior: left
    assert np.abs(place(0, "PTV")).max() < 30


def test_scroll_line_follows_the_slice(content: ReportContent) -> None:
    case = content.case
    axial, coronal, _ = dose_planes(case, content.evaluation.dose_gy, structure_styles(case))
    heights = [view.at for view in axial.slices]
    assert heights == sorted(heights, reverse=True)  # ascending z is towards the head, up
    assert abs(axial.slices[axial.central].at - coronal.isocentre[1]) <= 26


def test_every_slice_of_the_body_is_there_to_scroll_to() -> None:
    case = make_case(2.0, 2)
    axial, *_ = dose_planes(case, torch.zeros(case.grid.shape), {})
    assert len(axial.slices) == int(case.structures["Body"].any(dim=(1, 2)).sum())
    assert abs(axial.slices[axial.central].position_mm) <= 1.0


def test_pairs_share_a_colour_and_targets_have_their_own() -> None:
    styles = structure_styles(make_case(10.0, 2))
    left, right = styles["FemoralHeadLeft"], styles["FemoralHeadRight"]
    assert left.colour == right.colour and right.dashed and not left.dashed
    assert next(iter(styles)) == "PTV" and styles["PTV"].is_target
    assert len({style.colour for style in styles.values()}) == len(styles) - 1


def test_leaves_leave_open_what_the_plan_opens() -> None:
    case = make_case(10.0, 6)
    plan = make_plan(case)
    result = PlanResult(plan.fluence_mu(case.beam_setup), plan, Trace())
    film = aperture_film(case, result)
    for i, frame in enumerate(film.frames):
        tips = np.array(re.findall(r"M(\d+) (\d+)H(\d+)v(\d+)H\d+z", frame.leaves), dtype=int)
        left, right = tips[tips[:, 0] == 0], tips[tips[:, 0] == film.size[0]]
        opening_cm2 = float(((right[:, 2] - left[:, 2]) * left[:, 3]).sum()) / 1e4
        widths_mm = torch.tensor(case.beamlets.leaf_edges_mm).diff()
        expected_cm2 = float(((plan.right_mm[i] - plan.left_mm[i]) * widths_mm).sum()) / 100
        assert opening_cm2 == pytest.approx(expected_cm2, rel=0.01)
        outline = corners(frame.targets["PTV"]) - film.isocentre
        assert np.abs(outline.mean(axis=0)).max() < 30 and 250 < np.abs(outline).max() < 450


def test_head_is_up_at_collimator_zero() -> None:
    case = make_case(10.0, 6)
    case = replace(case, arcs=tuple(replace(arc, collimator_deg=0.0) for arc in case.arcs))
    fluence = torch.rand(case.fluence_shape)
    film = aperture_film(case, PlanResult(fluence, None, Trace()))
    for frame in film.frames:
        assert frame.head is not None
        assert frame.head[1] < film.size[1] / 4 and abs(frame.head[0] - film.size[0] / 2) < 3


def test_no_speed_passes_its_limit() -> None:
    case = make_case(10.0, 12)
    plan = make_plan(case)
    course = delivery(case, plan)
    machine = case.machine
    assert float(course.gantry_deg_per_s.max()) <= machine.gantry_speed_deg_per_s + 1e-4
    assert float(course.dose_rate_mu_per_min.max()) <= 60 * machine.dose_rate_mu_per_s + 1e-2
    assert float(course.leaf_mm_per_s.max()) <= machine.leaf_speed_mm_per_s + 1e-2
    delivered = (course.dose_rate_mu_per_min / 60 * case.control_points.sector_deg / course.gantry_deg_per_s).sum()
    assert float(delivered) == pytest.approx(float(plan.mu.sum()), rel=1e-5)


def test_dvh_falls_from_one_to_zero(content: ReportContent) -> None:
    names = list(content.case.structures)
    _, curves = cumulative_dvh(
        content.evaluation.dose_gy, content.case, names, 1.05 * float(content.evaluation.dose_gy.max())
    )
    for name in names:
        assert curves[name][0] == 1.0 and curves[name][-1] == 0.0
        assert (np.diff(curves[name]) <= 0).all()


@pytest.mark.parametrize(
    ("measure", "limit", "place"),
    [("V54gy", 0.15, (54.0, 15.0)), ("D99", 54.0, (54.0, 99.0)), ("D0.01cc", 66.0, (66.0, 0.0)), ("mean", 26.0, None)],
)
def test_goal_lies_at_its_dose_and_volume(measure: str, limit: float, place: tuple[float, float] | None) -> None:
    assert goal_place(GoalResult("PTV", measure, 1.0, limit, False, True)) == (
        None if place is None else pytest.approx(place)
    )


def test_slices_of_a_difference_are_blank_where_doses_agree(content: ReportContent) -> None:
    """One by one they are the slices of the report; the wash of a dose less itself shows nothing."""
    case, dose_gy = content.case, content.evaluation.dose_gy
    styles = structure_styles(case)
    planes, sliced = dose_planes(case, dose_gy, styles), SlicedCase.of(case, dose_gy, styles)
    axial = planes[0]
    assert sliced.slice("axial", axial.central, dose_gy) == axial.slices[axial.central]
    assert sliced.view("axial").central == axial.central and sliced.view("axial").size == axial.size

    def opacity(wash: str) -> int:
        image = Image.open(io.BytesIO(base64.b64decode(wash.partition(",")[2]))).convert("RGBA")
        return int(np.asarray(image)[..., 3].max())

    assert opacity(sliced.slice("axial", axial.central, dose_gy, dose_gy).wash) == 0
    assert opacity(sliced.slice("axial", axial.central, dose_gy, 0.9 * dose_gy).wash) > 100


def test_curves_of_other_plans_are_dotted(content: ReportContent) -> None:
    case, styles = content.case, structure_styles(content.case)
    edges, curves = cumulative_dvh(content.evaluation.dose_gy, case, [name for name in styles if name != "Body"], 70.0)
    drawing = curves_drawing(case, styles, edges, curves, others=[dict(curves), dict(curves)])
    dotted = [curve for curve in drawing.curves if curve.dashes]
    assert len(dotted) == 2 * len(curves)


def test_curves_and_goals_are_drawn_at_their_places(content: ReportContent) -> None:
    """A straight fall from 100 % at 0 Gy to 0 % at 60 Gy, and a goal above 30 Gy; no point more than it needs."""
    case, styles = content.case, structure_styles(content.case)
    edges = np.linspace(0.0, 75.0, 301)
    fall = {"PTV": np.clip(1 - edges / 60, 0, 1)}
    goal = GoalResult("PTV", "V30gy", 0.5, 0.5, True, True)
    drawing = curves_drawing(case, styles, edges, fall, [goal], size=(400.0, 300.0))
    left, upper, right, lower = drawing.box
    (curve,) = drawing.curves
    (x0, y0), (x1, y1) = ([float(value) for value in point.split()] for point in curve.path[1:].split("L"))
    full = lower - (lower - upper) / 1.03  # the axis ends at 103 %
    assert (x0, y0) == pytest.approx((left, full), abs=0.1)
    assert (x1, y1) == pytest.approx((left + (right - left) * 60 / 75, lower), abs=0.1)
    tip_x, tip_y = (float(value) for value in drawing.marks[0].path[1:].partition("l")[0].split())
    assert tip_x == pytest.approx(left + (right - left) * 30 / 75, abs=0.1)
    assert tip_y < (full + lower) / 2  # points up, to where the curve must pass
    assert [label for label, _ in drawing.doses] == ["0", "10", "20", "30", "40", "50", "60", "70"]
    assert drawing.names[0].text == "PTV"
