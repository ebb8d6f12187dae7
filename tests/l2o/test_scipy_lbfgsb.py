"""scipy's L-BFGS-B, counted like the others."""

from __future__ import annotations

import pytest
import torch
from toy import toy_problem

from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.baselines.scipy_lbfgsb import run_scipy_lbfgsb
from lightning_vmat.l2o.unroll import run


def test_one_value_an_evaluation_and_none_that_rises() -> None:
    problem = toy_problem(0)
    trace = run_scipy_lbfgsb(problem, problem.open_field, evaluations=7)
    assert len(trace.values) == len(trace.seconds) == 8
    assert float(trace.values[0]) == pytest.approx(float(problem.value(problem.open_field)))
    assert bool((trace.values[1:] <= trace.values[:-1]).all())
    assert float(trace.values[-1]) == pytest.approx(float(problem.value(trace.x)), rel=1e-5)
    assert trace.x.shape == problem.open_field.shape and bool((trace.x >= 0).all())


def test_ends_where_the_projected_one_ends() -> None:
    problem = toy_problem(1)
    library = run_scipy_lbfgsb(problem, problem.open_field, evaluations=2000).values[-1]
    ours = run(problem, LBFGS(), problem.open_field, evaluations=400).values[-1]
    torch.testing.assert_close(library, ours, rtol=0.03, atol=1e-4)


def test_stops_when_told_to() -> None:
    problem = toy_problem(0)
    goal = 0.5 * float(problem.value(problem.open_field))
    trace = run_scipy_lbfgsb(problem, problem.open_field, 50, lambda values: values[-1] <= goal)
    assert float(trace.values[-1]) <= goal < float(trace.values[-2])
    ours = run(problem, LBFGS(), problem.open_field, 50, lambda values: values[-1] <= goal)
    assert float(ours.values[-1]) <= goal < float(ours.values[-2])
