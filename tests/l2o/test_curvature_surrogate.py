"""The surrogate of the curvature: its rows, its equations, and what they save L-BFGS."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import avg_pool3d
from toy import toy_problem

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.dose.pooled_rows import pooled_rows
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.baselines.surrogate_lbfgs import SurrogateLBFGS
from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate, choose_voxels
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import run
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.planning.problem import build_problem


@pytest.fixture(scope="module")
def problem() -> Problem:
    return build_problem(with_jaws(make_phantom(3, "tiny"), 8.0), 400)


@pytest.mark.parametrize("cell", [(1, 1, 1), (2, 1, 1), (5, 3, 3)])
def test_rows_are_those_of_the_adjoint(problem: Problem, cell: tuple[int, int, int]) -> None:
    operator, voxels = problem.projection.operator, torch.tensor([0, 3, 17, 200, 399])
    fast = pooled_rows(operator, voxels, cell)
    weights = torch.nn.functional.one_hot(voxels, operator.voxel_count).float()
    slow = avg_pool3d(operator.adjoint(weights), cell, ceil_mode=True, count_include_pad=False)
    assert fast.shape[1:] == tuple(-(-length // of) for length, of in zip(operator.fluence_shape, cell, strict=True))
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-5 * float(slow.max()))


def test_chosen_voxels_stand_for_the_nearest_of_their_side(problem: Problem) -> None:
    assert problem.centres_mm is not None and problem.in_target is not None
    chosen, neighbourhood = choose_voxels(problem.centres_mm, problem.in_target, 60, seed=1)
    assert len(chosen) == 60 and int(problem.in_target[chosen].sum()) == 30
    assert torch.equal(problem.in_target, problem.in_target[chosen][neighbourhood])
    for side in (True, False):
        own, there = problem.in_target == side, problem.in_target[chosen] == side
        distance = torch.cdist(problem.centres_mm[own], problem.centres_mm[chosen][there])
        mine = (problem.centres_mm[own] - problem.centres_mm[chosen][neighbourhood[own]]).norm(dim=1)
        torch.testing.assert_close(mine, distance.amin(dim=1), atol=1e-2, rtol=0)


def test_with_all_voxels_and_beamlets_it_solves_the_newton_equations() -> None:
    problem = toy_problem(0, shape=(4, 4, 5), side=8)
    surrogate = CurvatureSurrogate.of(problem, voxels=10_000, cell=(1, 1, 1))
    dose_gy = problem.dose(problem.open_field)
    curvature, majoriser = problem.voxel_curvature(dose_gy), problem.majoriser(dose_gy)
    weights = surrogate.weights(curvature)
    assert float(weights.sum()) == pytest.approx(float(curvature.sum()), rel=1e-5)
    free = torch.rand(problem.open_field.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    gradient = problem.gradient(dose_gy)
    step = surrogate.solve(gradient, free, weights, majoriser, ridge=0.5, fine_ridge=1.0, iterations=200)
    assert float(step[~free].abs().max()) == 0
    image = problem.back_project(curvature * problem.dose(step)) + 0.5 * majoriser * step
    torch.testing.assert_close(image[free], gradient[free], rtol=0, atol=1e-3 * float(gradient.abs().max()))


def test_its_inverse_is_symmetric_and_positive(problem: Problem) -> None:
    surrogate = CurvatureSurrogate.of(problem, voxels=80, cell=(2, 2, 1))
    dose_gy = problem.dose(problem.open_field)
    weights, majoriser = surrogate.weights(problem.voxel_curvature(dose_gy)), problem.majoriser(dose_gy)
    generator = torch.Generator().manual_seed(1)
    free = torch.rand(problem.open_field.shape, generator=generator) < 0.6
    a, b = (torch.randn(problem.open_field.shape, generator=generator) * majoriser for _ in range(2))
    solved = [surrogate.solve(v, free, weights, majoriser, ridge=0.1, fine_ridge=0.2, iterations=300) for v in (a, b)]
    assert float((a * solved[1]).sum()) == pytest.approx(float((b * solved[0]).sum()), rel=0.02)
    assert float((a * solved[0]).sum()) > 0


@pytest.mark.parametrize("seed", [3, 9])
def test_ten_evaluations_save_several(seed: int) -> None:
    problem = build_problem(with_jaws(make_phantom(seed, "demo"), 8.0), 1500)
    plain = run(problem, LBFGS(), problem.open_field, 20).values
    found = run(problem, SurrogateLBFGS(voxels=400), problem.open_field, 10).values
    assert float(found[5]) < 0.85 * float(plain[5])
    assert float(found[10]) < float(plain[14])  # four evaluations at least; with 800 voxels, seven to ten


def test_a_problem_without_places_is_refused() -> None:
    problem = replace(toy_problem(0), centres_mm=None)
    with pytest.raises(ValueError, match=r"^toy 0: no places of the voxels, expected them"):
        SurrogateLBFGS().init(problem, problem.open_field)
