"""Exploration: where it is used, what it costs, and what it finds; and the pooled operator of its small problem."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import lightning_vmat.plan
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.pooled_operator import PooledOperator
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.plan.open_field import conformal_field
from lightning_vmat.planning.exploration import (
    SLOW_APERTURES,
    SLOW_PULL,
    SLOW_ROUNDS,
    SLOW_SECTORS,
    SWEPT_SECTORS,
    Exploration,
)
from lightning_vmat.planning.planner import Trace, TracePoint
from lightning_vmat.planning.planners import conventional_planner, reference_planner
from lightning_vmat.planning.problem import CaseProblems, build_problem, pooled_problem, small_voxels
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sliding_windows import crossing_sectors
from lightning_vmat.planning.staged import SequencedPlanner

VOXELS = 3000
CELL = (3, 1, 2)
MACHINES = Path(lightning_vmat.plan.__file__).parent / "machines"


def with_control_points(case: Case, count: int) -> Case:
    return replace(case, arcs=(replace(case.arcs[0], control_points=count),))


@pytest.fixture(scope="module")
def case() -> Case:
    return with_control_points(with_jaws(make_phantom(3, "tiny"), 8.0), 72)


@pytest.fixture(scope="module")
def operator(case: Case) -> PencilBeamOperator:
    return PencilBeamOperator.build(case, case.body_index[:: len(case.body_index) // 40])


def test_the_pooled_dose_is_exact_where_cells_are_uniform(operator: PencilBeamOperator) -> None:
    pooled = PooledOperator.of(operator, CELL)
    coarse = torch.rand([-(-length // of) for length, of in zip(operator.fluence_shape, CELL, strict=True)])
    fluence = coarse
    for axis, of in enumerate(CELL):
        fluence = fluence.repeat_interleave(of, dim=axis)
    c, l, b = operator.fluence_shape  # noqa: E741
    fluence = fluence[:c, :l, :b]
    expected = operator.forward(fluence)
    torch.testing.assert_close(pooled.forward(fluence), expected, rtol=0, atol=1e-4 * float(expected.max()))


def test_the_pooled_adjoint_is_the_transpose(operator: PencilBeamOperator) -> None:
    pooled = PooledOperator.of(operator, CELL)
    fluence, weight = torch.rand(2, *pooled.fluence_shape), torch.rand(2, pooled.voxel_count)
    forward = (pooled.forward(fluence) * weight).sum()
    assert float(forward) == pytest.approx(float((fluence * pooled.adjoint(weight)).sum()), rel=1e-5)


def test_a_pooled_operator_is_rebuilt_from_its_tensors(operator: PencilBeamOperator) -> None:
    pooled = PooledOperator.of(operator, CELL)
    again = PooledOperator.restore(pooled.tensors(), pooled.settings())
    fluence = torch.rand(pooled.fluence_shape)
    assert torch.equal(again.forward(fluence), pooled.forward(fluence))
    with pytest.raises(ValueError, match="expected the last axes"):
        pooled.forward(torch.rand(2, 2, 2))


def test_beamlets_behind_jaws_are_left_out(case: Case, operator: PencilBeamOperator) -> None:
    pooled = PooledOperator.of(operator, (1, 1, 1))
    assert len(pooled.cells.seen) == int(case.beamlets.inside_jaws.sum()) * case.fluence_shape[0]


def test_a_small_problem_has_the_value_of_the_whole_one(case: Case) -> None:
    """The open field's objective, which is dominated by large overdoses, is the same within sampling error."""
    whole, small = build_problem(case, VOXELS), pooled_problem(case, build_problem(case, 1000))
    values = [float(p.value(p.open_field)) for p in (whole, small)]
    assert values[1] == pytest.approx(values[0], rel=0.1)
    assert small.scale_mu == pytest.approx(whole.scale_mu, rel=0.05)


def test_wide_sectors_are_not_explored(case: Case) -> None:
    wide = with_control_points(case, 36)
    assert Exploration(5, 2, 3).fitted(case, VOXELS) is not None and Exploration(5, 2, 3).fitted(wide, VOXELS) is None
    planner = replace(reference_planner(VOXELS, rounds=5, exploration_evaluations=5), apertures=QuasiNewtonApertures(3))
    planner = replace(planner, part_evaluations=0, alone_budget=4)
    explored, alone = planner.plan(case), planner.plan(wide)
    assert "exploration" in explored.trace.seconds and "exploration" not in alone.trace.seconds
    assert alone.trace.dose_evaluations == 4
    assert alone.wanted_mu is None and explored.wanted_mu is not None


def test_exploration_finds_a_better_plan_than_local_descent(case: Case) -> None:
    """From the same start with as many evaluations of the whole problem."""
    local = SequencedPlanner(apertures=QuasiNewtonApertures(15), voxels=VOXELS)
    exploring = replace(local, exploration=Exploration(60, 20, 10))
    found = [planner.plan(case) for planner in (local, exploring)]
    values = [result.trace.points[-1].objective for result in found]
    assert values[1] < values[0]
    assert found[1].plan is not None and not any(machine_violations(found[1].plan, case.beam_setup).values())


def test_exploration_needs_no_gradients_from_its_caller(case: Case) -> None:
    """As in notebooks and sessions that plan under `torch.no_grad`."""
    planner = SequencedPlanner(apertures=QuasiNewtonApertures(3), exploration=Exploration(5, 2, 3), voxels=VOXELS)
    with torch.no_grad():
        without = planner.plan(case)
    assert torch.equal(without.fluence_mu, planner.plan(case).fluence_mu)


@pytest.mark.parametrize("evaluations", [3, 20, 30, 60])
def test_a_conventional_plan_stays_within_its_budget(case: Case, evaluations: int) -> None:
    planner = conventional_planner(VOXELS, evaluations=evaluations)
    assert planner.exploration is not None
    assert (planner.exploration.fitted(case, VOXELS) is not None) == (evaluations >= 20)
    assert planner.plan(case).trace.dose_evaluations <= evaluations


@pytest.mark.parametrize("rounds", [2, 60])
def test_the_reference_planner_keeps_its_budget_where_leaves_are_slow(slow: Case, rounds: int) -> None:
    planner = reference_planner(VOXELS, rounds=rounds, exploration_evaluations=3, aperture_evaluations=4)
    assert planner.budget is not None
    assert planner.plan(slow).trace.dose_evaluations <= math.ceil(planner.budget)


def test_rounds_fit_the_budget_or_there_are_none(case: Case) -> None:
    longest = Exploration(140, 20, 25, fewest_rounds=50)
    for budget in (5.0, 10.0, 15.0, 100.0):
        fitted = replace(longest, budget=budget).fitted(case, 30_000)
        if fitted is None:
            assert replace(longest, rounds=50).cost(30_000) > budget
        else:
            assert fitted.cost(30_000) <= budget and 50 <= fitted.rounds <= longest.rounds
    assert longest.fitted(case, 30_000) == longest
    assert longest.cost(30_000) == (20 + (1 + 140 * 2) + 25) * small_voxels(30_000) / 30_000


@pytest.fixture(scope="module")
def slow(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The case on a machine whose leaves take more than `SWEPT_SECTORS` to cross its field."""
    return on_slow_leaves(case, 1.2 * SWEPT_SECTORS, tmp_path_factory.mktemp("machine"))


def on_slow_leaves(case: Case, sectors: float, folder: Path) -> Case:
    """The case on a machine whose leaves take so many sectors to cross its field."""
    slower = crossing_sectors(conformal_field(case).float(), case.beam_setup) / sectors
    assert slower < 1
    values = yaml.safe_load((MACHINES / f"{case.machine_name}.yaml").read_text())
    values["leaf_speed_mm_per_s"] *= slower
    path = folder / "slow.yaml"
    path.write_text(yaml.safe_dump(values))
    return case.with_settings(machine_name=str(path))


def test_where_leaves_are_slow_few_rounds_from_sliding_windows_take_the_place_of_many(case: Case, slow: Case) -> None:
    """The apertures get the evaluations that are saved."""
    planner = reference_planner(VOXELS * 2, rounds=SLOW_ROUNDS + 32, aperture_evaluations=6)
    assert planner.exploration is not None
    quick, long = (planner.exploration.fitted(one, planner.voxels) for one in (slow, case))
    assert quick is not None and quick.sweeps and quick.rounds == SLOW_ROUNDS
    assert long is not None and not long.sweeps and long.rounds == SLOW_ROUNDS + 32
    assert quick.aperture_evaluations > long.aperture_evaluations
    assert quick.cost(planner.voxels) <= long.cost(planner.voxels)
    results = [planner.plan(one) for one in (slow, case)]
    spent = [result.trace.dose_evaluations for result in results]
    on_all = [sum(point.stage == "apertures" for point in result.trace.points) for result in results]
    assert abs(spent[0] - spent[1]) <= 1 and on_all[0] >= on_all[1] + 3
    assert results[0].plan is not None and not any(machine_violations(results[0].plan, slow.beam_setup).values())


def test_leaves_that_are_a_little_slow_get_fewer_rounds_from_the_fluence(case: Case, tmp_path: Path) -> None:
    between = on_slow_leaves(case, (SLOW_SECTORS + SWEPT_SECTORS) / 2, tmp_path)
    found = Exploration(140, 20, 5, sweeps=True).fitted(between, 30_000)
    assert found is not None and not found.sweeps and (found.rounds, found.pull) == (SLOW_ROUNDS, SLOW_PULL)


@pytest.mark.parametrize("sweeps", [True, False])
def test_where_leaves_are_slow_apertures_get_what_is_left(case: Case, slow: Case, sweeps: bool) -> None:
    """On the small problem, whose evaluations cost a sixteenth."""
    short = Exploration(3, 0, 5, budget=2.0, sweeps=sweeps)
    found = short.fitted(slow, 30_000)
    assert found is not None and (found.rounds, found.aperture_evaluations) == (3, 25)
    assert found.cost(30_000) == pytest.approx(2.0, rel=0.01)
    assert short.fitted(case, 30_000) == replace(short, sweeps=False)
    unlimited = replace(short, budget=math.inf).fitted(slow, 30_000)
    assert unlimited is not None and unlimited.aperture_evaluations == SLOW_APERTURES
    many = replace(unlimited, aperture_evaluations=2 * SLOW_APERTURES)
    assert many.fitted(slow, 30_000) == many


def test_from_sliding_windows_no_round_is_enough(slow: Case) -> None:
    swept = Exploration(140, 20, 5, budget=2.0, fewest_rounds=40, sweeps=True).fitted(slow, 30_000)
    assert swept is not None and swept.rounds == 3
    assert replace(swept, budget=1.6).fitted(slow, 30_000) == replace(swept, budget=1.6, rounds=0)
    assert replace(swept, budget=1.0).fitted(slow, 30_000) is None


def test_sliding_windows_end_in_a_better_plan_where_leaves_are_slow(slow: Case) -> None:
    planner = conventional_planner(VOXELS, evaluations=20)
    assert planner.exploration is not None
    alternating = replace(planner, exploration=replace(planner.exploration, sweeps=False))
    values = [one.plan(slow).trace.points[-1].objective for one in (planner, alternating)]
    assert values[0] < 0.9 * values[1]


def test_a_watcher_gets_doses_of_the_whole_problem_only(case: Case) -> None:
    """Those of the smaller ones have other voxels."""
    planner = reference_planner(VOXELS * 2, rounds=3, exploration_evaluations=3, aperture_evaluations=3)
    problems, seen = CaseProblems(case, planner.voxels), []

    def watch(point: TracePoint, dose_gy: torch.Tensor | None) -> None:
        seen.append((point.stage, None if dose_gy is None else len(dose_gy)))

    planner.solve(problems, Trace(watch=watch))
    assert ("exploration", None) in seen and ("apertures", problems.whole.voxel_count) in seen
    assert {length for _, length in seen} == {None, problems.whole.voxel_count}


def test_an_evaluation_of_a_sample_counts_as_its_share() -> None:
    trace = Trace()
    with trace.sample(0.1):
        trace.add("exploration", 5, 0.0, 2.0)
        trace.spend(25)
    trace.add("apertures", 2, 0.0, 1.0)
    trace.spend(2)
    assert [point.dose_evaluations for point in trace.points] == [1, math.ceil(2.5 + 2)]
    assert trace.dose_evaluations == 5
