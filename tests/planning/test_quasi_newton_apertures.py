"""The quasi-Newton model in fluence, the steps of leaves on it, and the aperture optimizer made of both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.leaf_motion import mean_coverage, time_in_beamlets
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.planning.fluence_model import FluenceModel, MajoriserGuess
from lightning_vmat.planning.leaf_steps import LeafSteps
from lightning_vmat.planning.pairs import Pairs, PlanPairs
from lightning_vmat.planning.planner import Trace, TracePoint
from lightning_vmat.planning.planners import conventional_planner
from lightning_vmat.planning.problem import PART, CaseProblems, build_problem
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures, SurrogateSettings
from lightning_vmat.planning.sequencing import sequence
from lightning_vmat.planning.staged import SequencedPlanner

SHAPE = (5, 3, 4)
MODELS = [None, SurrogateSettings(voxels=100)]


@pytest.fixture(scope="module")
def case() -> Case:
    return with_jaws(make_phantom(0, "tiny"), 8.0)


@pytest.fixture(scope="module")
def problem(case: Case) -> Problem:
    return build_problem(case, 1000)


def observed_model(pairs: int) -> tuple[FluenceModel, Tensor]:
    """A model that has seen steps on a quadratic with the Hessian that is returned."""
    size = 60
    factor = torch.randn(size, size)
    hessian = factor @ factor.T / size + torch.eye(size)
    model = FluenceModel(MajoriserGuess(hessian.diagonal().reshape(SHAPE).sqrt()))
    for _ in range(pairs):
        step = torch.randn(size)
        model.pairs.observe(step.view(SHAPE), (hessian @ step).view(SHAPE))
    return model, hessian


def dense(model: FluenceModel, damping: float = 1.0) -> Tensor:
    matrix = model.matrix(damping)
    return torch.stack([(matrix @ unit.view(SHAPE)).flatten() for unit in torch.eye(60)], dim=1)


@pytest.mark.parametrize("pairs", [0, 1, 5, 20])
def test_the_matrix_is_symmetric_and_positive_definite(pairs: int) -> None:
    matrix = dense(observed_model(pairs)[0])
    torch.testing.assert_close(matrix, matrix.T, atol=1e-3, rtol=1e-3)
    assert float(torch.linalg.eigvalsh(matrix.double()).min()) > 0


def test_the_matrix_maps_the_last_step_to_its_change_of_gradient() -> None:
    model, _ = observed_model(7)
    torch.testing.assert_close(model.matrix() @ model.pairs.steps[-1], model.pairs.changes[-1], atol=1e-3, rtol=1e-3)


def test_the_matrix_is_that_of_the_updates_one_by_one() -> None:
    """Nocedal and Wright 2006, eq. 6.19, from the same first guess."""
    model, _ = observed_model(6)
    scale = model.guess.scale_after(model.pairs.steps[-1], model.pairs.changes[-1])
    assert isinstance(model.guess, MajoriserGuess)
    matrix = dense(FluenceModel(replace(model.guess, scale=scale)))
    for s, y in zip(model.pairs.steps, model.pairs.changes, strict=True):
        step, change = s.flatten(), y.flatten()
        seen = matrix @ step
        matrix = matrix - torch.outer(seen, seen) / (step @ seen) + torch.outer(change, change) / (change @ step)
    torch.testing.assert_close(dense(model), matrix, atol=2e-3, rtol=2e-3)


def test_a_pair_without_curvature_is_left_out_and_damping_adds_curvature() -> None:
    model, _ = observed_model(3)
    model.pairs.observe(torch.ones(SHAPE), -torch.ones(SHAPE))
    assert len(model.pairs.steps) == 3
    more = dense(model, damping=4.0) - dense(model)
    assert float(torch.linalg.eigvalsh(more.double()).min()) > 0


def test_time_in_beamlets_is_the_derivative_by_a_shift(case: Case) -> None:
    begin, end = 40 * torch.randn(50, dtype=torch.double), 40 * torch.randn(50, dtype=torch.double)
    grid, shift = case.beamlets, 1e-4
    ahead, behind = (mean_coverage(begin + s, end + s, grid) for s in (shift, -shift))
    expected = (ahead - behind) / (2 * shift) * grid.beamlet_width_mm
    torch.testing.assert_close(time_in_beamlets(begin, end, grid), expected, atol=1e-5, rtol=0)


def test_leaf_steps_reach_a_fluence_that_leaves_can_deliver(case: Case) -> None:
    setup = case.beam_setup
    shape = case.fluence_shape[:2]
    wanted = project_to_limits(
        Plan(torch.full(shape, -23.0), torch.full(shape, 31.0), torch.full(shape[:1], 20.0)), setup
    )
    start = Plan(wanted.left_mm + 9.0, wanted.right_mm - 6.0, wanted.mu * 0.8)
    target = wanted.fluence_mu(setup)

    def squared_error(fluence_mu: Tensor) -> tuple[float, Tensor]:
        return float((fluence_mu - target).square().sum() / 2), fluence_mu - target

    before = squared_error(start.fluence_mu(setup))[0]
    plan, fluence_mu, value = LeafSteps(iterations=60).descend(
        setup, start, squared_error, torch.ones_like(target), Pairs()
    )
    assert value < 1e-3 * before
    torch.testing.assert_close(fluence_mu, plan.fluence_mu(setup))
    assert not any(machine_violations(plan, setup).values())


def test_pairs_of_earlier_leaf_steps_save_iterations(case: Case, problem: Problem) -> None:
    """The next search over the leaves goes on with the curvature that the search before it found."""
    setup, first = case.beam_setup, project_to_limits(start(case, problem), case.beam_setup)
    wanted = problem.open_field.square() * problem.scale_mu
    weight = problem.majoriser(problem.dose(problem.open_field))

    def squared_error(fluence_mu: Tensor) -> tuple[float, Tensor]:
        error = fluence_mu - wanted
        return float((weight * error.square()).sum() / 2), weight * error

    ends = []
    for kept in (False, True):
        pairs, plan = Pairs(), first
        for _ in range(4):
            plan, _, value = LeafSteps(iterations=8).descend(setup, plan, squared_error, weight, pairs)
            if not kept:
                pairs.forget()
        ends.append(value)
    assert ends[1] < ends[0]
    assert not any(machine_violations(plan, setup).values())


@pytest.mark.parametrize("surrogate", MODELS)
@pytest.mark.parametrize("evaluations", [3, 10, 17])
def test_it_spends_what_it_says(
    case: Case,
    problem: Problem,
    evaluations: int,
    surrogate: SurrogateSettings | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a dose evaluation for each projection; the surrogate's rows take none."""
    halves = counted_projections(monkeypatch)
    trace = Trace()
    QuasiNewtonApertures(evaluations, surrogate=surrogate).refine(case.beam_setup, problem, start(case, problem), trace)
    assert len(halves) in (2 * evaluations - 1, 2 * evaluations)
    assert trace.dose_evaluations == evaluations == trace.points[-1].dose_evaluations


def counted_projections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the list to which each forward or adjoint projection from now on adds its name."""
    halves: list[str] = []
    for name in ("forward", "adjoint"):
        original = getattr(PencilBeamOperator, name)

        def counted(
            self: PencilBeamOperator, argument: Tensor, name: str = name, original: Callable[..., Tensor] = original
        ) -> Tensor:
            halves.append(name)
            return original(self, argument)

        monkeypatch.setattr(PencilBeamOperator, name, counted)
    return halves


def start(case: Case, problem: Problem) -> Plan:
    return sequence(problem.open_field * problem.scale_mu, case.beamlets)


@pytest.mark.parametrize("surrogate", MODELS)
def test_the_objective_never_rises_and_all_limits_hold(
    case: Case, problem: Problem, surrogate: SurrogateSettings | None
) -> None:
    trace = Trace()
    plan = QuasiNewtonApertures(25, surrogate=surrogate).refine(case.beam_setup, problem, start(case, problem), trace)
    course = [point.objective for point in trace.points]
    assert course == sorted(course, reverse=True) and course[-1] < 0.7 * course[0]
    final = float(problem.value(plan.fluence_mu(case.beam_setup) / problem.scale_mu))
    assert final == pytest.approx(course[-1], rel=1e-4)
    assert not any(machine_violations(plan, case.beam_setup).values())


@pytest.mark.parametrize("surrogate", MODELS)
def test_rows_behind_the_jaws_stay_where_they_are(
    case: Case, problem: Problem, surrogate: SurrogateSettings | None
) -> None:
    rows, _ = case.beamlets.open_part
    behind = torch.ones(case.beamlets.shape[0], dtype=torch.bool)
    behind[rows] = False
    assert bool(behind.any())
    first = project_to_limits(start(case, problem), case.beam_setup)
    plan = QuasiNewtonApertures(6, surrogate=surrogate).refine(case.beam_setup, problem, first, Trace())
    torch.testing.assert_close(plan.left_mm[:, behind], first.left_mm[:, behind])
    assert float((plan.left_mm - first.left_mm)[:, ~behind].abs().max()) > 1.0


def test_the_surrogate_saves_half_of_the_evaluations() -> None:
    case = with_jaws(make_phantom(3, "demo"), 8.0)
    problem = build_problem(case, 1500)
    plain, quick = Trace(), Trace()
    QuasiNewtonApertures(12, surrogate=None).refine(case.beam_setup, problem, start(case, problem), plain)
    QuasiNewtonApertures(6).refine(case.beam_setup, problem, start(case, problem), quick)
    assert quick.points[-1].objective < plain.points[-1].objective


def test_more_evaluations_give_a_conventional_plan_that_is_no_worse(case: Case) -> None:
    values = []
    for evaluations in (5, 10, 20, 40):
        result = conventional_planner(1000, evaluations=evaluations).plan(case)
        assert result.trace.dose_evaluations <= evaluations
        values.append(result.trace.points[-1].objective)
    assert values == sorted(values, reverse=True) and values[-1] < values[0]


def test_a_watcher_sees_every_point_with_its_dose_and_may_end_the_run(case: Case, problem: Problem) -> None:
    class EnoughError(Exception):
        pass

    seen: list[tuple[int, float]] = []

    def watch(point: TracePoint, dose_gy: Tensor | None) -> None:
        assert dose_gy is not None
        assert float(problem.objective(dose_gy)) == pytest.approx(point.objective, rel=1e-5)
        seen.append((point.dose_evaluations, point.objective))
        if len(seen) == 4:
            raise EnoughError

    trace = Trace(watch=watch)
    with pytest.raises(EnoughError):
        QuasiNewtonApertures(25).refine(case.beam_setup, problem, start(case, problem), trace)
    assert seen == [(point.dose_evaluations, point.objective) for point in trace.points] and len(seen) == 4


def test_a_surrogate_made_before_gives_the_same_plan(case: Case, problem: Problem) -> None:
    """Also when the objective's weights have changed since, because it depends on the dose alone."""
    optimizer = QuasiNewtonApertures(6)
    made = replace(optimizer, made=optimizer.surrogate_of(case.beam_setup, problem))
    assert isinstance(problem.objective, PlanObjective)
    wished = replace(problem, objective=problem.objective.with_wishes({"Rectum": 4.0}, "test"))
    first = start(case, problem)
    plans = [one.refine(case.beam_setup, wished, first, Trace()) for one in (optimizer, made)]
    torch.testing.assert_close(plans[0].left_mm, plans[1].left_mm)
    torch.testing.assert_close(plans[0].mu, plans[1].mu)


def test_a_known_dose_saves_its_projection_and_changes_nothing(
    case: Case, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project_to_limits(start(case, problem), case.beam_setup)
    dose_gy = problem.dose(first.fluence_mu(case.beam_setup) / problem.scale_mu)
    plain, known = Trace(), Trace()
    halves = counted_projections(monkeypatch)
    plan = QuasiNewtonApertures(6).refine(case.beam_setup, problem, first, plain)
    before = len(halves)
    again = QuasiNewtonApertures(6).refine(case.beam_setup, problem, first, known, dose_gy=dose_gy)
    assert len(halves) - before == before - 1 and known.dose_evaluations == plain.dose_evaluations
    torch.testing.assert_close(again.left_mm, plan.left_mm)
    torch.testing.assert_close(again.mu, plan.mu)


def test_pairs_of_a_problem_with_other_voxels_save_evaluations() -> None:
    """The first steps on a problem are better with what the steps on a part of its voxels told of the curvature."""
    problems = CaseProblems(with_jaws(make_phantom(3, "tiny"), 8.0), 4000)
    case, pairs = problems.case, PlanPairs()
    plan = QuasiNewtonApertures(10).refine(
        case.beam_setup, problems.part, start(case, problems.part), Trace(), pairs=pairs
    )
    found = len(pairs.fluence.steps)
    assert found > 3
    ends = []
    for known in (PlanPairs(), pairs):
        trace = Trace()
        QuasiNewtonApertures(4).refine(case.beam_setup, problems.whole, plan, trace, pairs=known)
        ends.append(trace.points[-1].objective)
    assert ends[1] < 0.96 * ends[0] and len(pairs.fluence.steps) > found


def test_evaluations_on_part_of_the_voxels_count_as_their_share() -> None:
    planner = SequencedPlanner(apertures=QuasiNewtonApertures(4), part_evaluations=6, voxels=1200)
    result = planner.plan(with_jaws(make_phantom(3, "tiny"), 8.0))
    assert [point.stage for point in result.trace.points][-1] == "apertures"
    assert result.trace.dose_evaluations == math.ceil(6 * PART) + 4
