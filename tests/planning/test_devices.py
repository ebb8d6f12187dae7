"""Planning where the case is: on a pretended second device nothing mixes with tensors of the CPU."""

from __future__ import annotations

import pytest
import torch
from other_device import CPU, DEVICE, OtherDevice

from lightning_vmat.api.planners import planner
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.plan.arc import Arc
from lightning_vmat.planning.evaluation import evaluate_plan
from lightning_vmat.planning.planners import reference_planner
from lightning_vmat.planning.problem import build_problem


@pytest.mark.parametrize(
    "name", ["conventional@6", "learned", "reference", pytest.param("teacher", marks=pytest.mark.slow)]
)
def test_plan_and_evaluation_stay_on_the_device_of_the_case(name: str) -> None:
    quick = reference_planner(voxels=300, rounds=2, exploration_evaluations=3, aperture_evaluations=4)
    member = quick if name == "reference" else planner(name, voxels=300)
    case = make_phantom(0, "tiny").with_settings(arcs=(Arc(control_points=8), Arc(200.0, 160.0, 4)))
    with OtherDevice([]) as devices:
        there = case.to(DEVICE)
        result = member.plan(there)
        evaluation = evaluate_plan(result.case or there, result)
        tensors = [result.fluence_mu, evaluation.dose_gy, *(vars(result.plan).values() if result.plan else ())]
        places = [tensor.device for tensor in tensors]
    assert devices.mixed == {}
    assert places == [DEVICE] * len(places)


def test_the_pretended_device_changes_no_figure() -> None:
    case = make_phantom(1, "tiny")
    with OtherDevice([]):
        there = planner("conventional@4", voxels=300).plan(case.to(DEVICE)).plan
    here = planner("conventional@4", voxels=300).plan(case).plan
    assert here is not None and there is not None
    assert all(torch.equal(there_one, vars(here)[name]) for name, there_one in vars(there).items())


def test_what_would_fail_on_a_gpu_is_found() -> None:
    here = torch.arange(3.0)
    with OtherDevice([]) as devices:
        there = here.to(DEVICE)
        assert (here.device, there.device, (there * 2).device, there.cpu().device) == (CPU, DEVICE, DEVICE, CPU)
        _ = there * here.sum(), there[here.long()], there + torch.ones(3, device=there.device)  # these work on a GPU
        assert not devices.mixed
        _ = there + here
        assert sum(devices.mixed.values()) == 1
        _ = torch.cat((there, torch.zeros(1)))
        assert sum(devices.mixed.values()) == 2
        module = torch.nn.Linear(3, 1)
        module(there)
        assert sum(devices.mixed.values()) > 2
        devices.mixed.clear()
        module.to(DEVICE)(there)
        assert not devices.mixed


def test_the_problem_is_where_its_case_is() -> None:
    with OtherDevice([]) as devices:
        problem = build_problem(make_phantom(0, "tiny").to(DEVICE), 300)
        value, gradient, dose_gy = problem.evaluate(problem.open_field)
        assert {value.device, gradient.device, dose_gy.device} == {DEVICE}
    assert not devices.mixed
