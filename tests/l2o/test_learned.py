"""Properties of the learned optimizer, whatever its weights; and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from toy import toy_problem

from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.l2o.learned_filter import LearnedFilter
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import sharpened
from lightning_vmat.l2o.unroll import run, unroll


class Rescaled:
    """An objective in other units."""

    def __init__(self, problem: Problem, factor: float) -> None:
        self.inner, self.factor = problem.objective, factor

    def __call__(self, dose_gy: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner(dose_gy)

    def gradient(self, dose_gy: torch.Tensor) -> torch.Tensor:
        return self.factor * self.inner.gradient(dose_gy)

    def to(self, device: torch.device | str) -> Rescaled:
        return self


def wild_network(seed: int = 0, scale: float = 3.0) -> LearnedOptimizer:
    """Weights that no training would give."""
    torch.manual_seed(seed)
    network = LearnedOptimizer(hidden=4)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return network


@pytest.fixture(scope="module")
def trained() -> LearnedOptimizer:
    """A few seconds of meta-training on toy problems."""
    torch.manual_seed(0)
    network = LearnedOptimizer(hidden=8, filter_size=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    problems = [toy_problem(seed) for seed in range(4)]
    for _ in range(6):
        for problem in problems:
            state = network.init(problem, problem.open_field * (0.5 + torch.rand_like(problem.open_field)))
            for _window in range(2):
                state, loss = unroll(problem, network, state, 5)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                state = state.detach()
    return network


def test_parameters_are_few() -> None:
    assert sum(parameter.numel() for parameter in LearnedOptimizer().parameters()) < 50_000


def test_untrained_it_is_projected_lbfgs() -> None:
    problem = toy_problem(10)
    learned = run(problem, LearnedOptimizer(), problem.open_field, 12)
    torch.testing.assert_close(learned.values, run(problem, LBFGS(), problem.open_field, 12).values, rtol=1e-3, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_any_weights_descend_and_stay_feasible(seed: int) -> None:
    problem = toy_problem(11)
    trace = run(problem, wild_network(seed), problem.open_field, 30)
    assert (trace.values.diff() <= 1e-6 * trace.values[:-1]).all()
    assert trace.x.min() >= 0
    assert trace.values[-1] < 0.3 * trace.values[0]
    torch.testing.assert_close(trace.values[-1], problem.value(trace.x), rtol=1e-4, atol=1e-4)


def test_weights_that_are_not_finite_fall_back_to_lbfgs() -> None:
    problem = toy_problem(12)
    network = LearnedOptimizer()
    torch.nn.init.constant_(network.encode.weight, torch.nan)
    trace = run(problem, network, problem.open_field, 12)
    assert trace.values.isfinite().all()
    torch.testing.assert_close(trace.values, run(problem, LBFGS(), problem.open_field, 12).values, rtol=1e-3, atol=0)


def test_units_of_the_objective_do_not_matter() -> None:
    problem = toy_problem(13)
    network = wild_network(scale=0.3)
    scaled = Problem("scaled", problem.projection, Rescaled(problem, 1024.0), problem.scale_mu, problem.open_field)
    mine = run(problem, network, problem.open_field, 8)
    other = run(scaled, network, problem.open_field, 8)
    torch.testing.assert_close(other.values / 1024, mine.values, rtol=1e-3, atol=0)


def test_same_twice_and_state_is_not_in_the_module() -> None:
    problem = toy_problem(14)
    network = wild_network(scale=0.3)
    before = copy.deepcopy(network.state_dict())
    first = run(problem, network, problem.open_field, 8)
    second = run(problem, network, problem.open_field, 8)
    assert torch.equal(first.x, second.x)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 12), (9, 5, 7)])
def test_takes_any_number_of_control_points_and_any_grid(shape: tuple[int, int, int]) -> None:
    problem = toy_problem(15, shape)
    trace = run(problem, wild_network(scale=0.3), problem.open_field, 6)
    assert trace.values[-1] < trace.values[0]


def test_every_parameter_gets_a_finite_gradient() -> None:
    problem = toy_problem(16)
    network = wild_network(scale=0.3)
    _, loss = unroll(problem, network, network.init(problem, problem.open_field), 4)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_briefly_trained_beats_adam_at_its_best_rate_on_new_problems(trained: LearnedOptimizer) -> None:
    """Objective over Adam's after ten evaluations: 0.41 to 0.92, mean 0.55 to 0.59, by seed and rounding."""
    ratios = []
    for problem in (toy_problem(seed) for seed in range(20, 24)):
        learned = run(problem, trained, problem.open_field, 10).values[-1]
        adam = min(run(problem, Adam(rate), problem.open_field, 10).values[-1] for rate in (0.05, 0.1, 0.2, 0.4))
        ratios.append(learned / adam)
    assert max(ratios) < 1.0
    assert torch.stack(ratios).log().mean().exp() < 0.7


def test_training_beats_no_training_and_holds_beyond_its_horizon(trained: LearnedOptimizer) -> None:
    """Objective over that of the untrained network, which is L-BFGS, on problems it has not seen.

    After 5 evaluations, as many as a window: 0.80 to 0.82 over three seeds, 0.93 is asked for; after 33: 1.00.
    """
    early, late = [], []
    for problem in (toy_problem(seed) for seed in range(20, 26)):
        mine = run(problem, trained, problem.open_field, 33).values
        untrained = run(problem, LearnedOptimizer(hidden=8, filter_size=3), problem.open_field, 33).values
        early.append((mine[5] / untrained[5]).log())
        late.append((mine[33] / untrained[33]).log())
    assert float(torch.stack(early).mean().exp()) < 0.93
    assert float(torch.stack(late).mean().exp()) < 1.1


@pytest.mark.parametrize("shape", [(1, 4, 6), (5, 3, 4), (6, 8, 8)])
def test_learned_filter_is_symmetric_and_positive_whatever_its_weights(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    sharpen = LearnedFilter()
    for parameter in sharpen.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    first, second = torch.randn(2, *shape)
    with torch.no_grad():
        forth, back = (first * sharpen(second)).sum(), (second * sharpen(first)).sum()
        torch.testing.assert_close(forth, back, rtol=1e-3, atol=1e-3)
        assert float((first * sharpen(first)).sum()) > 0


@pytest.mark.parametrize("shape", [(1, 4, 6), (5, 3, 4), (6, 8, 8)])
def test_learned_filter_begins_as_the_hand_made_one(shape: tuple[int, int, int]) -> None:
    maps = torch.randn(shape)
    torch.testing.assert_close(LearnedFilter()(maps), sharpened(maps), rtol=1e-4, atol=1e-4)
