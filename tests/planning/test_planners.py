"""Planners on a real phantom: what they promise about limits, objectives and the dose they deliver."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from lightning_vmat.benchmarks.comparison import measure
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.dose.blur import FINE_NODE_STEP_MM, NODE_STEP_MM
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.plan.voxels import sample_voxels
from lightning_vmat.planning.evaluation import evaluate_plan, sequencing_error
from lightning_vmat.planning.planner import PlanResult, Trace
from lightning_vmat.planning.planners import fluence_planner, reference_planner
from lightning_vmat.planning.problem import build_problem, small_voxels
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.planning.staged import SequencedPlanner

VOXELS = 1000


@pytest.fixture(scope="module")
def case() -> Case:
    """Sectors of 5 degrees, which suit exploration."""
    tiny = make_phantom(0, "tiny")
    return replace(tiny, arcs=(replace(tiny.arcs[0], control_points=72),))


@pytest.fixture(scope="module")
def problem(case: Case) -> Problem:
    return build_problem(case, VOXELS)


@pytest.fixture(scope="module")
def reference(case: Case) -> PlanResult:
    return reference_planner(
        VOXELS, fluence_evaluations=15, rounds=10, exploration_evaluations=20, aperture_evaluations=15
    ).plan(case)


@pytest.fixture(scope="module")
def ideal(case: Case) -> PlanResult:
    return fluence_planner(voxels=VOXELS, evaluations=60).plan(case)


def objective(problem: Problem, fluence_mu: torch.Tensor) -> float:
    return float(problem.value(fluence_mu / problem.scale_mu))


def test_open_field_of_unit_scale_gives_the_prescription(case: Case, problem: Problem) -> None:
    inside = case.structures["PTV"].flatten()[sample_voxels(case, VOXELS).index]
    mean_gy = float(problem.dose(problem.open_field)[inside].mean())
    assert mean_gy == pytest.approx(case.prescription_gy["PTV"], rel=1e-4)


def test_conformal_field_holds_the_view_of_every_target_voxel(case: Case) -> None:
    field = conformal_field(case, margin_mm=0.0)
    points_mm = case.grid.centres_mm(case.target.flatten().nonzero()[:, 0])
    bev_mm, _ = project_to_bev(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    column = ((bev_mm[..., 0] - case.beamlets.beamlet_start_mm) / case.beamlets.beamlet_width_mm).floor().long()
    row = torch.bucketize(bev_mm[..., 1].contiguous(), torch.tensor(case.beamlets.leaf_edges_mm)) - 1
    control_point = torch.arange(len(field))[:, None].expand_as(row)
    assert bool(field[control_point, row, column].all())
    assert int(field.sum()) < int(conformal_field(case, margin_mm=8.0).sum()) < field.numel()


def test_reference_plan_violates_nothing_and_is_what_it_delivers(case: Case, reference: PlanResult) -> None:
    assert reference.plan is not None
    assert sum(machine_violations(reference.plan, case.beam_setup).values()) == 0
    delivered = reference.plan.fluence_mu(case.beam_setup)
    torch.testing.assert_close(delivered, reference.fluence_mu)


def test_each_stage_earns_its_place(case: Case, problem: Problem, reference: PlanResult, ideal: PlanResult) -> None:
    explored = [point for point in reference.trace.points if point.stage == "exploration"]
    sequenced = project_to_limits(sequence(ideal.fluence_mu, case.beamlets), case.beam_setup).fluence_mu(
        case.beam_setup
    )
    assert explored[-1].objective < 0.5 * explored[0].objective
    polished = objective(problem, reference.fluence_mu)
    assert objective(problem, ideal.fluence_mu) < polished < 0.5 * objective(problem, sequenced)


def test_aperture_optimization_never_ends_worse_than_it_started(case: Case, problem: Problem) -> None:
    plan = project_to_limits(sequence(problem.open_field * problem.scale_mu, case.beamlets), case.beam_setup)
    before = objective(problem, plan.fluence_mu(case.beam_setup))
    after = QuasiNewtonApertures(2).refine(case.beam_setup, problem, plan, Trace())
    assert objective(problem, after.fluence_mu(case.beam_setup)) <= before * (1 + 1e-6)
    assert sum(machine_violations(after, case.beam_setup).values()) == 0


def test_trace_counts_evaluations_and_time_upwards(reference: PlanResult) -> None:
    points = reference.trace.points
    explored = (15 + (1 + 10 * 2) + 20) * small_voxels(VOXELS) / VOXELS  # a share of an evaluation each
    assert reference.trace.dose_evaluations == points[-1].dose_evaluations
    assert reference.trace.dose_evaluations == pytest.approx(explored + 15, abs=1.5)
    for earlier, later in pairwise(points):
        assert later.dose_evaluations >= earlier.dose_evaluations
        assert later.seconds >= earlier.seconds
    assert points[-1].seconds <= sum(reference.trace.seconds.values())


def test_pulled_fluence_is_one_that_apertures_follow(case: Case, problem: Problem, reference: PlanResult) -> None:
    """From what a plan delivers: without the pull the fluence gets better and its sequenced plan worse."""
    given = reference.fluence_mu / problem.scale_mu
    free = SequencedPlanner(lambda *_: given, LBFGS(), 8, QuasiNewtonApertures(1), voxels=VOXELS)
    pulled = replace(free, pull=0.01)
    lost, objectives, evaluations = [], [], []
    for planner in (free, pulled):
        result = planner.plan(case)
        assert result.wanted_mu is not None and result.sequenced_mu is not None
        assert objective(problem, result.wanted_mu) < objective(problem, reference.fluence_mu)
        lost.append(float((result.sequenced_mu - result.wanted_mu).square().sum() / result.wanted_mu.square().sum()))
        objectives.append(objective(problem, result.fluence_mu))
        evaluations.append(result.trace.dose_evaluations)
    assert lost[1] < 0.7 * lost[0]
    assert objectives[1] < objectives[0]
    assert evaluations[1] == evaluations[0] + 3


def test_plans_of_one_seed_are_the_same(case: Case) -> None:
    planner = reference_planner(
        VOXELS, fluence_evaluations=3, rounds=3, exploration_evaluations=2, aperture_evaluations=5
    )
    torch.testing.assert_close(planner.plan(case).fluence_mu, planner.plan(case).fluence_mu, rtol=0, atol=0)


def test_a_prescription_twice_as_high_asks_for_twice_the_monitor_units(case: Case, problem: Problem) -> None:
    double = build_problem(case.with_settings(prescription_gy={"PTV": 120.0}), VOXELS)
    assert double.scale_mu == pytest.approx(2 * problem.scale_mu, rel=1e-5)


def test_evaluation_measures_the_delivered_dose(case: Case, reference: PlanResult, ideal: PlanResult) -> None:
    evaluation = evaluate_plan(case, reference)
    assert evaluation.dose_gy.shape == case.grid.shape
    assert not bool(evaluation.dose_gy[~(case.structures["Body"] | case.target)].any())
    target = evaluation.structures["PTV"]
    assert 0.85 * 60 < target["d95_gy"] < target["d50_gy"] < target["d2_gy"] < 1.2 * 60
    assert sum(evaluation.violations.values()) == 0
    assert reference.plan is not None
    assert evaluation.complexity["mu"] == pytest.approx(float(reference.plan.mu.sum()))
    bound = evaluate_plan(case, ideal)
    assert bound.violations == {} and bound.complexity == {}
    row = measure(case, reference, evaluation)
    assert row["objective"] == pytest.approx(evaluation.objective)


def test_plans_are_judged_on_fine_nodes(case: Case, ideal: PlanResult) -> None:
    judged = evaluate_plan(case, ideal).dose_gy.flatten()[case.body_index]
    fine, coarse = (
        PencilBeamOperator.build(case, case.body_index, node_step_mm=step_mm).forward(ideal.fluence_mu)
        for step_mm in (FINE_NODE_STEP_MM, NODE_STEP_MM)
    )
    torch.testing.assert_close(judged, fine)
    assert float((judged - coarse).abs().max()) > 1e-4 * float(fine.max())


def test_grid_that_misses_the_target_is_named(case: Case) -> None:
    away = replace(case.beamlets, beamlet_start_mm=500.0)
    with pytest.raises(ValueError, match=rf"{case.case_id}.*does not see the target"):
        build_problem(case.with_settings(beamlets=away), VOXELS)


def test_sequencing_loses_nothing_of_what_an_aperture_delivers_and_much_of_ideal_fluence(
    case: Case, reference: PlanResult, ideal: PlanResult
) -> None:
    delivered = replace(reference, wanted_mu=reference.fluence_mu, sequenced_mu=reference.fluence_mu)
    assert sequencing_error(case, delivered) == {"sequencing_mnse": 0.0}
    assert reference.plan is not None
    plan = sequence(ideal.fluence_mu, case.beamlets)
    lossy = replace(delivered, wanted_mu=ideal.fluence_mu, sequenced_mu=plan.fluence_mu(case.beam_setup))
    assert 0.05 < sequencing_error(case, lossy)["sequencing_mnse"] < 1.0
    assert sequencing_error(case, ideal) == {}
