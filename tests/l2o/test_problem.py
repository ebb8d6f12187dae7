"""A problem's gradient, its majoriser, and the search along a line of doses."""

from __future__ import annotations

import pytest
import torch
from toy import ToyObjective, toy_problem

from lightning_vmat.l2o.line_search import longest_step, search_step


def test_gradient_is_that_of_autograd() -> None:
    problem = toy_problem(0)
    x = torch.rand(problem.open_field.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value, gradient, dose_gy = problem.evaluate(x.detach())
    expected = torch.autograd.grad(problem.value(x), x)[0]
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(dose_gy, problem.dose(x.detach()))
    torch.testing.assert_close(value, problem.value(x.detach()))


def test_majoriser_bounds_the_curvature_in_every_direction() -> None:
    problem = toy_problem(1)
    dose_gy = problem.dose(problem.open_field)
    majoriser = problem.majoriser(dose_gy)
    assert isinstance(problem.objective, ToyObjective)
    weights = problem.objective.curvature(dose_gy)
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        direction = torch.randn(problem.open_field.shape, generator=generator)
        curvature = (weights * problem.dose(direction).square()).sum()
        assert curvature <= 1.01 * (majoriser * direction.square()).sum()
    assert majoriser.min() > 0


def test_longest_step_reaches_the_bound() -> None:
    x, direction = torch.tensor([[[1.0, 2.0, 0.0]]]), torch.tensor([[[-0.5, 1.0, 0.0]]])
    assert longest_step(x, direction) == 2.0
    assert longest_step(x, direction.abs()) == float("inf")


@pytest.mark.parametrize("longest", [0.03, 1.0, float("inf")])
def test_search_finds_the_least_value_on_the_line(longest: float) -> None:
    problem = toy_problem(2)
    dose_gy = problem.dose(problem.open_field)
    direction = problem.dose(-problem.gradient(dose_gy)) / 1e3
    step = search_step(problem.objective, dose_gy, direction, longest)
    grid = torch.linspace(0, min(longest, 4.0), 4001)
    values = problem.objective(dose_gy + grid[:, None] * direction)
    found = problem.objective(dose_gy + step * direction)
    assert step <= longest
    assert found - values.min() <= 1e-3 * (values[0] - values.min()) + 1e-4


def test_search_stands_still_uphill_and_at_nan() -> None:
    problem = toy_problem(3)
    dose_gy = problem.dose(problem.open_field)
    uphill = problem.dose(problem.gradient(dose_gy))
    assert search_step(problem.objective, dose_gy, uphill, 1.0) == 0.0
    assert search_step(problem.objective, dose_gy, uphill * torch.nan, 1.0) == 0.0
