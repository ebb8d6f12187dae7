"""Progress: a bar on a terminal; in a log file lines, one a minute at most."""

from __future__ import annotations

import contextlib
import os
import re
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_vmat.callbacks.progress_lines import ProgressLines
from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.progress import Progress, track
from lightning_vmat.recipes.base import Fluence, PlanRecipe

BAR = re.compile(r"\d+%\|")  # as tqdm draws it


@contextlib.contextmanager
def terminal() -> Iterator[list[bytes]]:
    """A terminal behind stdout and stderr; when it is hung up, the list holds what was written to it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    parts: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(ours, parts), daemon=True)  # a full terminal would block
    reader.start()
    with os.fdopen(theirs, "w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield parts
    reader.join(10)
    os.close(ours)


def read_all(terminal: int, parts: list[bytes]) -> None:
    """Read until nobody writes to a terminal any more."""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 1 << 16):
            parts.append(part)


def test_a_terminal_gets_a_bar() -> None:
    with terminal() as parts:
        assert list(track(["a", "b", "c"], "cases")) == ["a", "b", "c"]
    text = b"".join(parts).decode()
    assert BAR.search(text) and "3/3" in text and "cases" in text


def test_a_log_gets_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter(range(1000)), "cases", total=1000)) == list(range(1000))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"cases: 1000 of 1000 in 0:00:0\d\n", captured.err)


def test_a_log_gets_a_line_when_one_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    list(track(range(3), "cases", interval_s=0.0))
    assert re.findall(r"cases: (\d) of 3", capsys.readouterr().err) == ["1", "2", "3"]


@pytest.mark.parametrize("options", [{"shown": False}, {"lasting": False}])
def test_inner_and_hidden_loops_leave_no_line(options: dict[str, bool], capsys: pytest.CaptureFixture[str]) -> None:
    list(track(range(3), "cases", **options))
    assert capsys.readouterr().err == ""


def test_a_hidden_loop_leaves_nothing_on_a_terminal() -> None:
    with terminal() as parts:
        list(track(range(3), "cases", shown=False))
    assert parts == []


@given(steps=st.lists(st.integers(0, 5), max_size=20))
def test_progress_counts_all_steps(steps: list[int]) -> None:
    with Progress(sum(steps), "steps", shown=False) as progress:
        for count in steps:
            progress.advance(count)
    assert progress.done == sum(steps)


def test_items_without_a_length_need_a_total() -> None:
    with pytest.raises(ValueError, match="progress of cases: expected a total"):
        list(track(iter([1]), "cases"))


class OneWeight(PlanRecipe):
    """Fluence in proportion to the first condition channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def generate(self, batch: PlanBatch, seed: int = 0) -> Fluence:
        return (self.weight * batch.condition[:, 0]).clamp(min=0.0)

    def training_step(self, batch: PlanBatch, batch_index: int) -> torch.Tensor:
        loss = (self.generate(batch) - 1.0).square().mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    names = ["a", "b", "c"]
    for seed, name in enumerate(names):
        write_case(make_phantom(seed, "tiny"), root / name)
    Cohort(root, {"train": names[:1], "validation": names[1:2], "test": names[2:]}).write({})
    return root


@pytest.fixture
def fit(cohort: Path, tmp_path: Path) -> list[str]:
    """The command of a fit of two epochs, a batch each."""
    trainer = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "log_every_n_steps": 1}
    trainer |= {"default_root_dir": str(tmp_path / "run"), "enable_model_summary": False}
    content = {
        "model": {"class_path": f"{__name__}.OneWeight"},
        "data": {"cohort": str(cohort), "structures": ["Rectum"]},
        "trainer": trainer,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["fit", "--config", str(path)]


def test_a_fit_in_a_log_ends_with_one_line(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(fit) == 0
    captured = capsys.readouterr()
    assert not BAR.search(captured.out + captured.err)
    (line,) = [line for line in captured.out.splitlines() if line.startswith("epoch ")]
    assert re.fullmatch(r"epoch 2 of 2, ended, step 2, train/loss [\d.e-]+, \d:\d\d:\d\d", line)


def test_a_fit_in_a_log_writes_lines_when_due(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = "--trainer.callbacks+=ProgressLines", "--trainer.callbacks.init_args.interval_s=0"
    assert main([*fit, *lines]) == 0
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    training = [line for line in written if "batch 1 of 1" in line]
    assert [line.partition(",")[0] for line in training] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("train/loss" in line for line in training)
    assert any("validation batch 1" in line for line in written)


def test_a_fit_on_a_terminal_has_a_bar(fit: list[str]) -> None:
    with terminal() as parts:
        assert main(fit) == 0
    text = b"".join(parts).decode()
    assert "Epoch 1" in text and "train/loss" in text and "\r" in text
    assert "ended, step" not in text


def test_a_fit_without_progress_writes_none(fit: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*fit, "--trainer.enable_progress_bar=false"]) == 0
    assert not re.search(r"^epoch ", capsys.readouterr().out, flags=re.MULTILINE)


def test_a_preparation_in_a_log_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "phantom", f"--out={tmp_path / 'new'}", "--count=3", "--size=tiny", "--jobs=1"]) == 0
    assert re.fullmatch(r"cases: 3 of 3 in \d:\d\d:\d\d\n", capsys.readouterr().err)


def test_a_recipe_prints_its_own_text_between_the_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, lines = LightningModule(), ProgressLines()
    module.trainer = Trainer(callbacks=[lines], logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    capsys.readouterr()
    module.print("table")
    lines.disable()
    lines.print("hidden")
    assert capsys.readouterr().out == "table\n"
