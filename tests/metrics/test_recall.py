"""Recall and precision of generated maps on sets of which they are known."""

from __future__ import annotations

import pytest
import torch

from lightning_vmat.metrics.recall import CohortRecall


def maps(count: int, seed: int, shape: tuple[int, ...] = (18, 8, 8)) -> torch.Tensor:
    """Around one map, or the other half around another one."""
    generator = torch.Generator().manual_seed(seed)
    centres = 10.0 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return centres[torch.arange(count) % 2] + torch.randn(count, *shape, generator=generator)


def shares(generated: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    metric = CohortRecall()
    for part in zip(generated.split(3), reference.split(3), strict=True):
        metric.update(*part)
    return {name: float(share) for name, share in metric.compute().items()}


def test_the_cohort_itself_has_all() -> None:
    assert shares(maps(20, 1), maps(20, 1)) == {"recall": 1.0, "precision": 1.0}


def test_one_of_two_kinds_has_half_the_recall() -> None:
    one_kind = maps(40, 1)[::2].repeat_interleave(2, dim=0) + 0.01 * torch.randn(40, 18, 8, 8)
    reference = maps(40, 1)
    found = shares(one_kind, reference)
    assert found["precision"] == 1.0
    assert found["recall"] == pytest.approx(0.5, abs=0.05)


def test_maps_of_no_kind_have_neither() -> None:
    assert shares(maps(20, 1) + 100.0, maps(20, 2)) == {"recall": 0.0, "precision": 0.0}


def test_cases_of_other_sizes_compare() -> None:
    """Twice as fine in each axis: the averages are the same."""
    coarse = maps(12, 1)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    metric = CohortRecall()
    metric.update(fine[:6], fine[6:])
    metric.update(coarse[6:], coarse[:6])
    assert {name: float(share) for name, share in metric.compute().items()} == {"recall": 1.0, "precision": 1.0}


def test_fewer_neighbours_reach_less_far() -> None:
    """Four maps in a row with growing distances: the point beyond the last lies within the third neighbour's reach."""
    row = torch.tensor([0.0, 1.0, 3.0, 6.0])[:, None, None, None].expand(4, 18, 8, 8)
    beyond = torch.full((4, 18, 8, 8), 10.0)
    for neighbours, precision in ((1, 0.0), (3, 1.0)):
        metric = CohortRecall(neighbours)
        metric.update(beyond, row)
        assert float(metric.compute()["precision"]) == precision
    metric = CohortRecall(neighbours=1)
    metric.update(row[:1], row[:1])
    assert metric.compute() == {}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_cases_tell_nothing(count: int) -> None:
    metric = CohortRecall()
    metric.update(maps(count, 1), maps(count, 2))
    assert metric.compute() == {}


def test_a_process_without_cases_changes_nothing() -> None:
    """Its empty maps beside those of another, as torchmetrics gathers them."""
    alone, gathered = CohortRecall(), CohortRecall()
    for metric in (alone, gathered):
        metric.update(maps(12, 1), maps(12, 2))
    none = CohortRecall()
    none.update(torch.zeros(0, 1, 1, 1), torch.zeros(0, 1, 1, 1))
    for name in ("generated", "reference"):
        setattr(gathered, name, torch.cat([*getattr(gathered, name), *getattr(none, name)]))
    assert gathered.compute() == alone.compute() != {}
    assert none.compute() == {}
