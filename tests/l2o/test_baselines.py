"""Properties that every hand-designed optimizer keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy import ToyObjective, toy_problem

from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.baselines.surrogate_lbfgs import SurrogateLBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.unroll import run

PLAIN = [AcceleratedProjectedGradient(), LBFGS()]
MONOTONE = [*PLAIN, SurrogateLBFGS(voxels=60)]
EVERY = [Adam(), *MONOTONE]


@pytest.mark.parametrize("optimizer", [Adam(), *PLAIN], ids=lambda o: type(o).__name__)
def test_evaluations_are_counted_as_promised(optimizer: Optimizer[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = toy_problem(0)
    kind = type(problem.projection.operator)
    calls = {"forward": 0, "adjoint": 0}
    for name in calls:
        original = getattr(kind, name)

        def counted(
            self: object, argument: torch.Tensor, name: str = name, original: Callable[..., Any] = original
        ) -> torch.Tensor:
            calls[name] += 1
            return original(self, argument)

        monkeypatch.setattr(kind, name, counted)
    trace = run(problem, optimizer, problem.open_field, evaluations=7)
    assert len(trace.values) == len(trace.seconds) == 8
    assert calls["adjoint"] == 7
    assert calls["forward"] == 7 + 2  # the start, and the value at the start that `run` notes


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_fluence_stays_non_negative_and_value_is_that_of_the_fluence(optimizer: Optimizer[Any]) -> None:
    problem = toy_problem(1)
    trace = run(problem, optimizer, problem.open_field - 0.3, evaluations=15)
    assert trace.x.min() >= 0
    torch.testing.assert_close(trace.values[-1], problem.value(trace.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", MONOTONE, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("start", ["open", "zero", "random", "huge"])
def test_no_step_raises_the_objective(optimizer: Optimizer[Any], start: str) -> None:
    problem = toy_problem(2)
    x0 = {
        "open": problem.open_field,
        "zero": torch.zeros_like(problem.open_field),
        "random": torch.rand(problem.open_field.shape, generator=torch.Generator().manual_seed(0)),
        "huge": 1e3 * problem.open_field,
    }[start]
    trace = run(problem, optimizer, x0, evaluations=30)
    assert trace.values.isfinite().all()
    assert (trace.values.diff() <= 1e-6 * trace.values[:-1]).all()
    assert trace.values[-1] < 0.5 * trace.values[0]


@pytest.mark.parametrize("optimizer", MONOTONE, ids=lambda o: type(o).__name__)
def test_converges_to_the_same_minimum_with_no_feasible_descent_left(optimizer: Optimizer[Any]) -> None:
    problem = toy_problem(3)
    best = run(problem, LBFGS(), problem.open_field, evaluations=300)
    found = run(problem, optimizer, 0.5 * torch.ones_like(problem.open_field), evaluations=300)
    assert found.values[-1] <= 1.01 * best.values[-1]
    gradient = problem.evaluate(best.x)[1]
    start = problem.evaluate(problem.open_field)[1]
    assert torch.where(best.x > 1e-4, gradient.abs(), (-gradient).relu()).max() < 1e-2 * start.abs().max()


@pytest.mark.parametrize("optimizer", EVERY, ids=lambda o: type(o).__name__)
def test_stands_still_where_the_objective_is_already_met(optimizer: Optimizer[Any]) -> None:
    problem = toy_problem(4)
    nothing = torch.zeros(problem.projection.operator.voxel_count)
    met = ToyObjective(low=nothing, high=nothing + 1e6, under=nothing, over=nothing + 1)
    problem = replace(problem, objective=met)
    trace = run(problem, optimizer, problem.open_field, evaluations=5)
    assert (trace.values == 0).all()
    assert trace.x.isfinite().all()


def test_ranking_at_ten_evaluations() -> None:
    """L-BFGS and accelerated gradient both beat Adam at its best learning rate."""
    problem = toy_problem(5)
    adam = min(float(run(problem, Adam(rate), problem.open_field, 10).values[-1]) for rate in (0.05, 0.1, 0.2, 0.4))
    accelerated = float(run(problem, AcceleratedProjectedGradient(), problem.open_field, 10).values[-1])
    quasi_newton = float(run(problem, LBFGS(), problem.open_field, 10).values[-1])
    assert quasi_newton < accelerated < adam


@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_bad_start_is_named(bad: str) -> None:
    problem = toy_problem(6)
    x0 = problem.open_field[:-1] if bad == "shape" else problem.open_field * torch.nan
    with pytest.raises(ValueError, match="toy 6: start"):
        run(problem, LBFGS(), x0, evaluations=1)
