"""The whole objective on a case."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.objectives.structures import distance_mm
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import VoxelSample, all_voxels, sample_voxels

PROTOCOL = load_protocol("head_and_neck_70gy_35fx")


@pytest.fixture(scope="module")
def objective(nested_case: Case) -> PlanObjective:
    return PlanObjective.from_case(nested_case, all_voxels(nested_case), PROTOCOL)


def doses(objective: PlanObjective, *batch: int) -> torch.Tensor:
    count = len(objective.structures["Body"])
    return 80 * torch.rand(*batch, count, generator=torch.Generator().manual_seed(0))


def test_terms_sum_to_the_value_in_batches(objective: PlanObjective) -> None:
    d = doses(objective, 3)
    terms = objective.terms(d)
    assert "SpinalCord.max" in terms
    assert "Brainstem.max" not in terms  # optional, and this case has none
    assert torch.allclose(torch.stack(list(terms.values())).sum(dim=0), objective(d))
    assert torch.allclose(objective(d)[1], objective(d[1]))


def test_gradient_is_the_derivative(objective: PlanObjective) -> None:
    d = doses(objective, 2)
    step = torch.randn(d.shape, generator=torch.Generator().manual_seed(1))
    h = 0.05
    slope = (objective(d + h * step) - objective(d - h * step)) / (2 * h)
    gradient = objective.gradient(d)
    assert gradient.shape == d.shape
    assert not gradient.requires_grad
    assert torch.allclose((gradient * step).sum(-1), slope, rtol=2e-3, atol=0.05 * float(slope.abs().max()))
    value, same = objective.value_and_gradient(d)
    assert torch.equal(same, gradient)
    assert torch.allclose(value, objective(d))


def test_a_good_dose_beats_a_uniform_one(objective: PlanObjective, nested_case: Case) -> None:
    index = nested_case.body_index
    good = torch.full((len(index),), 10.0)
    for name in reversed(nested_case.target_names):
        good[nested_case.structures[name].flatten()[index]] = 1.01 * nested_case.prescription_gy[name]
    assert float(objective(good)) < 0.05 * float(objective(torch.full_like(good, 70.0)))
    assert float(objective(good)) < 0.05 * float(objective(torch.zeros_like(good)))


def test_a_weighted_sample_estimates_the_whole(nested_case: Case, objective: PlanObjective) -> None:
    points = nested_case.grid.centres_mm(nested_case.body_index)
    dose = 75 * torch.exp(-points.norm(dim=1) / 40)
    whole = objective.terms(dose)
    place = torch.zeros(nested_case.grid.voxel_count, dtype=torch.long)
    place[nested_case.body_index] = torch.arange(len(nested_case.body_index))
    sums: dict[str, float] = {}
    for seed in range(20):
        sample = sample_voxels(nested_case, 1500, seed)
        part = PlanObjective.from_case(nested_case, sample, PROTOCOL).terms(dose[place[sample.index]])
        for name, value in part.items():
            sums[name] = sums.get(name, 0.0) + float(value) / 20
    for name, value in whole.items():
        assert sums[name] == pytest.approx(float(value), rel=0.15, abs=0.5), name


def test_what_lies_outside_is_left_out(nested_case: Case, objective: PlanObjective) -> None:
    members = {member.name: member for member in objective.members}
    index = nested_case.body_index
    for name, targets, margin in (
        ("Larynx.squared_overdose", ("PTV70", "PTV63", "PTV56"), 0.0),
        ("PTV56.squared_overdose", ("PTV70", "PTV63"), 6.0),
    ):
        kept = torch.zeros(len(index), dtype=torch.bool)
        kept[members[name].voxels.index] = True
        near = torch.stack(
            [distance_mm(nested_case.structures[t], nested_case.grid, index) <= margin for t in targets]
        ).any(dim=0)
        inside = nested_case.structures[name.split(".")[0]].flatten()[index]
        assert torch.equal(kept, inside & ~near)
        assert 0 < int(kept.sum()) < int(inside.sum())


def test_distance_is_euclidean_in_mm(nested_case: Case) -> None:
    grid = nested_case.grid
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[5, 7, 9] = True
    every = torch.arange(grid.voxel_count)
    centre = grid.centres_mm(torch.tensor([(5 * 20 + 7) * 24 + 9]))
    assert torch.allclose(distance_mm(mask, grid, every), (grid.centres_mm(every) - centre).norm(dim=1), atol=1e-3)


def test_limits_follow_the_cases_prescription(nested_case: Case) -> None:
    case = nested_case.with_settings(prescription_gy={"PTV70": 35.0, "PTV63": 31.5, "PTV56": 28.0})
    objective = PlanObjective.from_case(case, all_voxels(case), PROTOCOL)
    terms = objective.terms(torch.full((len(case.body_index),), 1.025 * 35.0))  # within the window of 102 to 103.5 %
    assert float(terms["PTV70.squared_underdose"]) == 0
    assert float(terms["PTV70.squared_overdose"]) == 0


def test_a_case_without_a_needed_structure_is_refused(nested_case: Case) -> None:
    protocol = load_protocol("prostate_60gy_20fx")
    with pytest.raises(ValueError, match=r"prostate_60gy_20fx.*'PTV'.*nested"):
        PlanObjective.from_case(nested_case, all_voxels(nested_case), protocol)


def test_structure_not_sampled_counts_as_absent(nested_case: Case) -> None:
    outside = ~nested_case.target.flatten()[nested_case.body_index]
    index = nested_case.body_index[outside]
    with pytest.raises(ValueError, match="PTV70"):
        PlanObjective.from_case(nested_case, VoxelSample(index, torch.ones(len(index))), PROTOCOL)


def test_moves_between_devices(objective: PlanObjective) -> None:
    d = doses(objective)
    moved = objective.to("meta")
    assert moved.gather.device.type == "meta"
    assert moved(d.to("meta")).device.type == "meta"
