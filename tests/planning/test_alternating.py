"""Sequencing in turns with fluence optimization: what the pull adds, and what the turns are good for."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.planning.alternating import AlternatingSequencing
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.planning.pulled_problem import PulledProblem
from lightning_vmat.planning.sequencing import sequence


@pytest.fixture(scope="module")
def case() -> Case:
    return make_phantom(1, "tiny")


@pytest.fixture(scope="module")
def problem(case: Case) -> Problem:
    return build_problem(case, 1000)


@pytest.fixture(scope="module")
def optimised(problem: Problem) -> torch.Tensor:
    return run(problem, LBFGS(), problem.open_field, 30).x


def error_of(case: Case, problem: Problem, plan: Plan, x: torch.Tensor) -> float:
    delivered = plan.fluence_mu(case.beam_setup) / problem.scale_mu
    return float((delivered - x).square().sum() / x.square().sum())


def test_pull_adds_its_square_and_its_gradient(problem: Problem) -> None:
    generator = torch.Generator().manual_seed(0)
    x, target = (torch.rand(problem.open_field.shape, generator=generator) for _ in range(2))
    pulled = PulledProblem.of(problem, target, 3.0)
    torch.testing.assert_close(pulled.value(x), problem.value(x) + 1.5 * (x - target).square().sum())
    value, gradient, _ = pulled.evaluate(x)
    torch.testing.assert_close(value, pulled.value(x))
    torch.testing.assert_close(gradient, problem.evaluate(x)[1] + 3.0 * (x - target), rtol=1e-4, atol=1e-3)
    seen = pulled.dose(x)
    torch.testing.assert_close(pulled.majoriser(seen) - 3.0, problem.majoriser(problem.dose(x)), rtol=1e-3, atol=1e-2)


def test_a_strong_pull_ends_at_its_target(problem: Problem) -> None:
    target = torch.rand(problem.open_field.shape, generator=torch.Generator().manual_seed(1))
    pull = 1e3 * float(problem.majoriser(problem.dose(problem.open_field)).max())
    x = run(PulledProblem.of(problem, target, pull), LBFGS(), problem.open_field, 20).x
    torch.testing.assert_close(x, target, rtol=0, atol=0.01)


def test_turns_make_a_better_plan_than_sequencing_once(case: Case, problem: Problem, optimised: torch.Tensor) -> None:
    trace = Trace()
    alternating = AlternatingSequencing(rounds=15)
    plan = alternating.sequence(case.beam_setup, problem, optimised, trace)
    once = project_to_limits(sequence(optimised * problem.scale_mu, case.beamlets), case.beam_setup)
    value, value_once = (float(problem.value(p.fluence_mu(case.beam_setup) / problem.scale_mu)) for p in (plan, once))
    assert value < 0.5 * value_once  # it is about a tenth
    assert sum(machine_violations(plan, case.beam_setup).values()) == 0
    assert trace.dose_evaluations == 1 + 15 * alternating.evaluations == trace.points[-1].dose_evaluations


def test_an_open_field_is_sequenced_as_it_is(case: Case, problem: Problem) -> None:
    plan = AlternatingSequencing(rounds=1, evaluations=0).sequence(
        case.beam_setup, problem, problem.open_field, Trace()
    )
    grown = plan.fluence_mu(case.beam_setup)
    assert bool(grown.isfinite().all())
    assert error_of(case, problem, plan, problem.open_field * float(plan.mu.mean()) / problem.scale_mu) < 0.2
