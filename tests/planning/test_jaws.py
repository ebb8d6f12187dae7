"""Jaws: where they stand, that no dose comes from behind them, and that plans keep their leaves closed there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.dose._reference import dose_influence
from lightning_vmat.dose.beam_model import load_beam_model
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.metrics.complexity import plan_complexity
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beamlets import BeamletGrid, project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws, within_jaws
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.evaluation import evaluate_plan, sequencing_error
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.planners import fluence_planner
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.planning.staged import SequencedPlanner

MARGIN_MM = 6.0


@pytest.fixture(scope="module")
def case() -> Case:
    """A phantom in a field that its target fills in part."""
    phantom = make_phantom(0, "tiny")
    wide = BeamletGrid(tuple(float(y) for y in range(-100, 101, 5)), -100.0, 5.0, 40)
    return phantom.with_settings(beamlets=wide)


@pytest.fixture(scope="module")
def jawed(case: Case) -> Case:
    return with_jaws(case, MARGIN_MM)


def test_beamlets_inside_the_jaws() -> None:
    grid = BeamletGrid((0.0, 5.0, 10.0), -10.0, 5.0, 4, (-5.0, 5.0, -20.0, 5.0))
    expected = torch.tensor([True, False])[:, None] & torch.tensor([False, True, True, False])
    assert grid.inside_jaws.equal(expected)
    assert grid.field_mm == (-5.0, 5.0, 0.0, 5.0)
    assert bool(replace(grid, jaws_mm=None).inside_jaws.all())


@pytest.mark.parametrize("jaws_mm", [(-6.0, 5.0, 0.0, 10.0), (-5.0, 5.0, 0.0, 7.5)])
def test_jaws_within_a_leaf_pair_or_beamlet_are_refused(jaws_mm: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"^jaws .* mm: expected X1, X2, Y1, Y2 between leaf pairs and beamlets$"):
        BeamletGrid((0.0, 5.0, 10.0), -10.0, 5.0, 4, jaws_mm)


def test_jaws_stand_at_the_first_boundary_beyond_the_margin(case: Case, jawed: Case) -> None:
    points_mm = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev_mm, _ = project_to_bev(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    x1, x2, y1, y2 = jawed.beamlets.field_mm
    for low, high, axis in ((x1, x2, 0), (y1, y2, 1)):
        for room in (float(bev_mm[..., axis].min()) - low, high - float(bev_mm[..., axis].max())):
            assert MARGIN_MM <= room < MARGIN_MM + 5.0
        assert low % 5 == high % 5 == 0


def test_dose_is_that_of_a_field_as_small(case: Case, jawed: Case) -> None:
    """Some fluence everywhere: what is behind the jaws gives nothing, in the fast operator and in its definition."""
    x1, x2, y1, y2 = jawed.beamlets.field_mm
    rows, columns = (slice(round(low + 100) // 5, round(high + 100) // 5) for low, high in ((y1, y2), (x1, x2)))
    edges = tuple(y for y in case.beamlets.leaf_edges_mm if y1 <= y <= y2)
    small = case.with_settings(beamlets=BeamletGrid(edges, x1, 5.0, round(x2 - x1) // 5))
    fluence = torch.rand(case.fluence_shape)
    inside = fluence[:, rows, columns]
    index, model = case.body_index[::97], load_beam_model("generic_6mv")
    for one, other, tolerance in (
        (dose_influence(jawed, index, model).flatten(1) @ fluence.flatten().double(),
         dose_influence(small, index, model).flatten(1) @ inside.flatten().double(), 1e-6),
        (PencilBeamOperator.build(jawed, index).forward(fluence),
         PencilBeamOperator.build(small, index).forward(inside), 1e-6),  # on the same nodes
    ):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.max()))
    gradient = PencilBeamOperator.build(jawed, index).adjoint(torch.ones(len(index)))
    assert bool((gradient[:, rows, columns] > 0).all())
    assert float(gradient.sum()) == pytest.approx(float(gradient[:, rows, columns].sum()))


def test_plan_keeps_leaves_closed_behind_the_jaws(case: Case, jawed: Case) -> None:
    """Without jaws some of these pairs open: the plan of the same settings says that the test could fail."""
    planner = SequencedPlanner(optimizer=LBFGS(), evaluations=10, apertures=QuasiNewtonApertures(10), voxels=1000)
    behind = ~jawed.beamlets.inside_jaws.any(dim=1)
    widest_mm = {}
    for name, planned in (("none", case), ("jaws", jawed)):
        plan = planner.plan(planned).plan
        assert plan is not None
        assert sum(machine_violations(plan, planned.beam_setup).values()) == 0
        widest_mm[name] = float((plan.right_mm - plan.left_mm)[:, behind].max())
    assert widest_mm["jaws"] <= case.machine.min_leaf_gap_mm + 1e-3 < widest_mm["none"]


def test_plan_of_a_machine_without_x_jaws_breaks_no_limit() -> None:
    case = with_jaws(make_phantom(0, "tiny").with_settings(machine_name="elekta_agility"), MARGIN_MM)
    planner = SequencedPlanner(optimizer=LBFGS(), evaluations=10, apertures=QuasiNewtonApertures(10), voxels=500)
    plan = planner.plan(case).plan
    assert plan is not None and not any(machine_violations(plan, case.beam_setup).values())


def test_jaws_are_part_of_a_case_on_disk(jawed: Case, tmp_path: Path) -> None:
    write_case(jawed, tmp_path / "case")
    assert read_case(tmp_path / "case").beamlets == jawed.beamlets


def test_openings_behind_jaws_do_not_count_as_complexity(case: Case, jawed: Case) -> None:
    x1, x2, _, _ = jawed.beamlets.field_mm
    shape = case.fluence_shape[:2]
    wide = Plan(torch.full(shape, x1 - 20.0), torch.full(shape, x2 + 15.0), torch.ones(shape[0]))
    inside = replace(wide, left_mm=torch.full(shape, x1), right_mm=torch.full(shape, x2))
    found, expected = (plan_complexity(p, jawed.beam_setup, 3.0) for p in (wide, inside))
    assert found == pytest.approx(expected)
    beyond = plan_complexity(wide, case.beam_setup, 3.0)
    assert beyond["aperture_area_cm2"] > 1.2 * found["aperture_area_cm2"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((-38.0, 37.0, -37.0, 38.0), (-40.0, 40.0, -40.0, 40.0)),
        ((-35.0, 35.0, -30.0, 30.0004), (-35.0, 35.0, -30.0, 30.0)),
        ((-500.0, 500.0, -500.0, 1.0), (-100.0, 100.0, -100.0, 5.0)),
    ],
)
def test_jaws_move_out_to_the_next_boundaries(
    case: Case, given: tuple[float, float, float, float], expected: tuple[float, ...]
) -> None:
    """So that a plan read from DICOM, whose tips are behind its jaws already, is not cut twice."""
    grid = within_jaws(case, given).beamlets
    assert grid.field_mm == expected


def test_jaws_beside_the_field_name_the_case(case: Case) -> None:
    with pytest.raises(ValueError, match=rf"^case {case.case_id}: jaws "):
        within_jaws(case, (200.0, 240.0, -40.0, 40.0))


def test_what_is_wanted_of_a_plan_ends_at_the_jaws(jawed: Case) -> None:
    """Neither ideal fluence nor what sequencing loses reaches behind them, whatever closed leaves let through."""
    behind = ~jawed.beamlets.inside_jaws
    ideal = fluence_planner(voxels=1000, evaluations=3).plan(jawed).fluence_mu
    assert bool((ideal[:, behind] == 0).all()) and bool((ideal[:, ~behind] > 0).any())
    sequenced = sequence(ideal, jawed.beamlets).fluence_mu(jawed.beam_setup)
    assert bool((sequenced[:, behind] > 0).any())
    wanted = sequenced * jawed.beamlets.inside_jaws
    result = PlanResult(sequenced, None, Trace(), wanted, sequenced)
    assert sequencing_error(jawed, result) == {"sequencing_mnse": 0.0}


def test_a_comparison_has_jaws_unless_told_not_to(tmp_path: Path) -> None:
    phantom = make_phantom(0, "tiny")
    write_case(phantom, tmp_path / "cohort" / "a")
    Cohort(tmp_path / "cohort", {"train": [], "validation": [], "test": ["a"]}).write({})
    objectives = {}
    for margin in ("8", "null"):
        path = tmp_path / f"{margin}.json"
        arguments = [
            "benchmark",
            "planners",
            "--cohort",
            str(tmp_path / "cohort"),
            "--planners",
            "fluence",
            "--voxels",
            "300",
        ]
        assert main([*arguments, "--jaw_margin_mm", margin, "--json", str(path)]) == 0
        objectives[margin] = json.loads(path.read_text())["cases"]["fluence"]["phantom_0000"]["objective"]
    for margin, planned in (("8", with_jaws(phantom, 8.0)), ("null", with_jaws(phantom, None))):
        found = evaluate_plan(planned, fluence_planner(voxels=300).plan(planned))
        assert objectives[margin] == pytest.approx(found.objective)
    assert objectives["8"] != objectives["null"]


@pytest.mark.parametrize("margin_mm", [4.9, -1.0, float("nan"), float("inf")])
def test_margins_inside_the_open_field_are_refused(case: Case, margin_mm: float) -> None:
    with pytest.raises(ValueError, match=r"^jaw margin .* mm: expected at least 5$"):
        with_jaws(case, margin_mm)


@pytest.mark.parametrize("margin", ["2", ".inf", "wide"])
def test_a_bad_margin_is_one_line(margin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "plan", tmp_path / "figures.json"
    plan = ["plan", str(tmp_path), "--out", str(out)]
    benchmark = ["benchmark", "planners", "--cohort", str(tmp_path), "--planners", "reference", "--json", str(figures)]
    for arguments in (plan, benchmark):
        assert main([*arguments, "--jaw_margin_mm", margin]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("vmat: error: ") and "jaw" in line
    assert list(tmp_path.iterdir()) == []


def test_a_case_with_its_own_influence_keeps_its_field(case: Case, tmp_path: Path) -> None:
    own = case.with_settings(influence_path=tmp_path / "influence.safetensors")
    assert with_jaws(own, MARGIN_MM) is own


@pytest.mark.parametrize("jaws_mm", [(10.0, -10.0, -20.0, 20.0), (60.0, 80.0, -20.0, 20.0)])
def test_jaws_that_leave_nothing_open_are_refused(jaws_mm: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"jaws .* mm: expected X1, X2, Y1, Y2"):
        BeamletGrid((0.0, 5.0), -50.0, 5.0, 20, jaws_mm)
