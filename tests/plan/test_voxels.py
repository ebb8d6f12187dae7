"""The voxel sample stands for the whole body, and for each of its parts."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import all_voxels, sample_voxels

COUNT = 1500


@pytest.fixture(scope="module")
def case() -> Case:
    return make_phantom(2, "demo")


def test_size_and_represented_volume(case: Case) -> None:
    sample = sample_voxels(case, COUNT)
    assert len(sample) == pytest.approx(COUNT, rel=0.01)
    assert float(sample.weight.sum()) == pytest.approx(len(case.body_index), rel=0.2)
    assert float(sample.weight.min()) >= 1.0
    assert bool((sample.index.diff() > 0).all())  # ascending, so no voxel twice
    assert bool(torch.isin(sample.index, case.body_index).all())


def test_every_structure_is_seen_at_its_true_volume(case: Case) -> None:
    samples = [sample_voxels(case, COUNT, seed) for seed in range(30)]
    for name, mask in case.structures.items():
        inside = mask.flatten()
        volumes = torch.tensor([float(s.weight[inside[s.index]].sum()) for s in samples])
        assert float(volumes.min()) > 0, name
        spread = float(volumes.std()) / len(samples) ** 0.5
        assert float(volumes.mean()) == pytest.approx(float(mask.sum()), abs=4 * spread + 0.01 * float(mask.sum())), (
            name
        )


def test_targets_and_their_surroundings_are_denser_than_the_rest(case: Case) -> None:
    sample = sample_voxels(case, COUNT)
    in_target = case.target.flatten()[sample.index]
    assert float(sample.weight[in_target].mean()) < 0.2 * float(sample.weight.max())
    assert int(in_target.sum()) > 0.2 * COUNT


def test_same_seed_same_voxels_and_another_seed_others(case: Case) -> None:
    first, again, other = (sample_voxels(case, COUNT, seed) for seed in (3, 3, 4))
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)


def test_a_sample_as_large_as_the_body_is_the_body(case: Case) -> None:
    sample = sample_voxels(case, 10**7)
    assert torch.equal(sample.index, all_voxels(case).index) and bool((sample.weight == 1).all())
