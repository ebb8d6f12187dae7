"""Several processes share out a cohort: none waits for another for ever, and none counts a case twice."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_vmat.cli import main
from lightning_vmat.data.batching import SameShapeBatches

TWO_RANKS = ["--trainer.devices", "2", "--trainer.strategy", "ddp_fork"]
SHAPES = st.lists(st.sampled_from([(12, 8, 8), (24, 8, 8), (12, 12, 12)]), min_size=1, max_size=30)


@given(shapes=SHAPES, batch_size=st.integers(1, 5), ranks=st.integers(1, 5), epoch=st.integers(0, 3))
def test_training_takes_the_same_steps_on_all_ranks(
    shapes: list[tuple[int, ...]], batch_size: int, ranks: int, epoch: int
) -> None:
    def batches(rank: int) -> list[list[int]]:
        sampler = SameShapeBatches(shapes, batch_size, True, rank, ranks, progress=lambda: (epoch, 0))
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    shares = [batches(rank) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    for step in zip(*shares, strict=True):
        assert all(1 <= len(batch) <= batch_size for batch in step)
        places = list(chain.from_iterable(step))
        assert len({shapes[place] for place in places}) == 1
        assert len(places) == len(set(places)) or len(places) == ranks  # repeated only where there are too few
    assert set(chain.from_iterable(chain.from_iterable(shares))) == set(range(len(shapes)))


@given(shapes=SHAPES, batch_size=st.integers(1, 5), ranks=st.integers(1, 5))
def test_evaluation_sees_each_case_once(shapes: list[tuple[int, ...]], batch_size: int, ranks: int) -> None:
    if len(shapes) < ranks:
        with pytest.raises(ValueError, match=f"{len(shapes)} cases for {ranks} devices"):
            SameShapeBatches(shapes, batch_size, False, 0, ranks)
        return
    shares = [list(SameShapeBatches(shapes, batch_size, False, rank, ranks)) for rank in range(ranks)]
    assert all(shares)  # a rank without any would leave the others waiting
    assert all(len({shapes[place] for place in batch}) == 1 for share in shares for batch in share)
    assert sorted(chain.from_iterable(chain.from_iterable(shares))) == list(range(len(shapes)))


@given(shapes=SHAPES, done=st.integers(0, 3))
def test_an_epoch_goes_on_where_it_was_stopped(shapes: list[tuple[int, ...]], done: int) -> None:
    def batches(done: int) -> list[list[int]]:
        return list(SameShapeBatches(shapes, 2, True, seed=1, progress=lambda: (5, done)))

    whole = batches(0)
    assert batches(done) == whole[done % len(whole) :]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return list(SameShapeBatches([(1,)] * 20, 1, True, seed=seed, progress=lambda: (epoch, 0)))

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)


def measured(run: Path, prefix: str) -> dict[str, float]:
    """The values that a run logged last under names of a prefix."""
    values: dict[str, float] = {}
    for path in sorted(run.glob("metrics/*/metrics.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            values |= {name: float(value) for name, value in row.items() if name.startswith(prefix) and value}
    return values


def test_two_ranks_measure_what_one_does(config: Path) -> None:
    """Three cases in batches of up to two, of two shapes: the ranks have two cases and one."""
    options = ["--data.with_problems", "true", "--data.voxels", "200", "--data.batch_size", "2"]
    test = ["test", "--config", str(config), *options]
    one, two = config.parent / "one", config.parent / "two"
    assert main([*test, "--trainer.default_root_dir", str(one)]) == 0
    assert main([*test, "--trainer.default_root_dir", str(two), *TWO_RANKS]) == 0
    alone = measured(one, "test/")
    assert {"test/diversity", "test/objective", "test/target_d95", "test/goals_met"} <= set(alone)
    assert measured(two, "test/") == pytest.approx(alone, rel=1e-6)


def test_a_ragged_cohort_trains_on_two_ranks_and_goes_on(config: Path) -> None:
    run = config.parent / "run"
    fit = ["fit", "--config", str(config), *TWO_RANKS, "--trainer.max_epochs", "2"]
    assert main(fit) == 0
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # of two cases of one shape, and of the third on both ranks
    more = [*fit[:-1], "3", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert main(more) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_too_few_cases_for_the_devices_are_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.devices", "4", "--trainer.strategy", "ddp_fork"]
    assert main(["test", "--config", str(config), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("vmat: error: cohort ") and "test: 3 cases for 4 devices" in error
