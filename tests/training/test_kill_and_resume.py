"""`vmat fit` killed at any moment: the same command goes on, and ends as if nothing had happened."""

from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from one_weight import DIE_IN, configuration, killed, weight_of

from lightning_vmat.cli import main
from lightning_vmat.commands.resuming import differences, is_whole

MOMENTS = (
    "training_step:2",  # before there is any checkpoint
    "training_step:8",  # in the middle of an epoch
    "validation_step:5",
    "on_save_checkpoint:5",  # in the middle of an epoch's checkpoints
)
EPOCHS, CASES = 5, 3


def logged(run: Path, name: str) -> list[tuple[int, str]]:
    """All that a run logged under a name, in steps' order, from all parts of the run."""
    rows = [row for path in run.glob("metrics/*/metrics.csv") for row in csv.DictReader(path.read_text().splitlines())]
    return sorted((int(row["step"]), row[name]) for row in rows if row.get(name))


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a fit that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["fit", "--config", str(configuration(cohort, folder))]) == 0
    return folder / "run"


def assert_same(run: Path, whole: Path) -> None:
    """Weights and all that was logged are the same to the bit; every step was logged once."""
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == EPOCHS * CASES
    assert weight_of(run / "checkpoints" / "last.ckpt") == weight_of(whole / "checkpoints" / "last.ckpt")
    assert logged(run, "train/loss") == logged(whole, "train/loss")
    assert logged(run, "val/diversity") == logged(whole, "val/diversity")
    assert [step for step, _ in logged(run, "train/loss")] == list(range(EPOCHS * CASES))
    assert not (run / "unfinished.yaml").exists()
    assert not list(run.rglob(".*.ckpt"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_fit_goes_on_as_if_nothing_had_happened(moment: str, config: Path, whole: Path) -> None:
    run = config.parent / "run"
    killed(["fit", "--config", str(config)], moment)
    assert (run / "unfinished.yaml").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file() == (moment != MOMENTS[0])
    assert main(["fit", "--config", str(config)]) == 0
    assert_same(run, whole)


def test_killed_twice_it_still_ends_the_same(config: Path, whole: Path) -> None:
    fit = ["fit", "--config", str(config)]
    killed(fit, "training_step:5")
    killed(fit, "training_step:4")  # of the second part
    assert main(fit) == 0
    assert_same(config.parent / "run", whole)


def test_a_finished_fit_is_made_anew(config: Path) -> None:
    fit = ["fit", "--config", str(config)]
    last = config.parent / "run" / "checkpoints" / "last.ckpt"
    assert main(fit) == 0
    weight = weight_of(last)
    killed(fit, "training_step:2")
    assert not last.exists()  # nothing of the earlier run to go on from
    assert main([*fit, "--model.init_args.start", "0.75"]) == 0
    assert weight_of(last) != weight


def test_other_settings_are_refused_or_begun_anew(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", "--config", str(config)]
    killed(fit, "training_step:8")
    before = {path: path.read_bytes() for path in (config.parent / "run").rglob("*") if path.is_file()}
    assert main([*fit, "--model.init_args.rate", "0.2"]) == 2
    error = capsys.readouterr().err
    assert "model.init_args.rate (0.1 -> 0.2)" in error and "--resume false" in error
    assert {path: path.read_bytes() for path in (config.parent / "run").rglob("*") if path.is_file()} == before
    assert main([*fit, "--model.init_args.rate", "0.2", "--resume", "false"]) == 0
    assert torch.load(config.parent / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 15


def test_the_trainer_may_change_in_between(config: Path) -> None:
    fit = ["fit", "--config", str(config)]
    killed(fit, "training_step:8")
    assert main([*fit, "--trainer.max_epochs", "7", "--data.num_workers", "0"]) == 0
    assert torch.load(config.parent / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 21


@pytest.mark.parametrize("damage", ["cut", "one byte"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_offered(
    damage: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit", "--config", str(config)]
    killed(fit, "training_step:11")  # in the fourth epoch
    last, previous = (config.parent / "run" / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content[:-100] if damage == "cut" else content)
    capsys.readouterr()
    assert main(fit) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"vmat: error: checkpoint {last}: ") and error.endswith(f"--ckpt_path {previous}")
    assert main([*fit, "--ckpt_path", str(previous)]) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 15
    assert Counter(step for step, _ in logged(config.parent / "run", "train/loss")) == Counter(range(15))


def test_a_checkpoint_of_slurm_is_gone_on_from_if_it_is_newer(config: Path) -> None:
    """Lightning leaves `hpc_ckpt_N.ckpt` in the run directory when Slurm is about to stop a job."""
    run = config.parent / "run"
    fit = ["fit", "--config", str(config)]
    killed(fit, "training_step:8")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    saved["state_dict"]["weight"] = torch.tensor(1e6)  # where no training leads
    torch.save(saved, run / "hpc_ckpt_1.ckpt")
    newer = os.stat(run / "checkpoints" / "last.ckpt").st_mtime + 1
    os.utime(run / "hpc_ckpt_1.ckpt", (newer, newer))
    assert main(fit) == 0
    assert weight_of(run / "checkpoints" / "last.ckpt") > 1e5


class SaveAndDie(Callback):
    """A checkpoint in the middle of the second epoch, as where Slurm's notice comes, and a killed process."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if DIE_IN in os.environ and trainer.global_step == 4:
            for logger in trainer.loggers:
                logger.save()
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            os.kill(os.getpid(), signal.SIGKILL)


def test_an_epoch_that_was_stopped_in_its_middle_goes_on_with_the_cases_left(config: Path, whole: Path) -> None:
    """No case twice in an epoch, none left out; Lightning logs a batch after the hook in which it was killed."""
    fit = ["fit", "--config", str(config), "--trainer.callbacks+", f"{__name__}.SaveAndDie"]
    killed(fit, "here")
    assert main(fit) == 0
    expected = [(step, case) for step, case in logged(whole, "train/case") if step != 3]
    assert logged(config.parent / "run", "train/case") == expected


def test_differences_are_named_by_their_keys() -> None:
    earlier, now = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1], "e": None}
    assert list(differences(earlier, now)) == ["a.c (2 -> 3)"]
    assert not is_whole(Path("/nowhere"))
