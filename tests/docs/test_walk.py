"""The commands under "What you can type", typed one after another, at sizes of seconds."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from readme import ROOT, fences, words_of

from lightning_vmat.cli import main

CASES = 3
NARROW = ["--model.init_args.network.init_args.channels=[8,16]", "--model.init_args.network.init_args.heads=2"]
QUICK = [
    "--data.cohort=runs/cohort",
    "--data.voxels=300",
    "--trainer.limit_train_batches=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
]
ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]
TWENTY = ["--trainer.max_epochs=20"]  # the recipe keeps a checkpoint every twenty epochs
SMALLER = {
    "prepare phantom": [f"--count={CASES}", "--size=tiny", "--jobs=1"],
    "fit --config configs/teacher.yaml": [*NARROW, *QUICK, *TWENTY],
    "fit --config configs/distillation.yaml": [*NARROW, *QUICK, *TWENTY, "--model.init_args.pairs=1"],
    "fit --config configs/regression.yaml": [*NARROW, *QUICK, *TWENTY],
    "fit --config configs/learned_optimizer.yaml": [
        *QUICK,
        *ON_CPU,
        "--trainer.max_epochs=2",
        "--model.init_args.horizon=6",
    ],
    "test --config configs/teacher.yaml": QUICK[:2],
    "plan": ["--voxels=300"],
    "benchmark": ["--cohort=runs/cohort", "--voxels=300", "--planners=fluence,learned=runs/learned_optimizer"],
    "bench optimizers": ["--cohort=runs/cohort", "--voxels=300", "--most=12"],
}
"""Start of a command -> options added to it, of which the last one given counts."""
NOT_HERE = ("path/to", "runs/kbp", "bench dose")  # data that the reader brings; half a minute and more


def to_type() -> list[list[str]]:
    """The commands whose input is there, or comes from one of those before it."""
    (fence,) = [fence for fence in fences() if "# Recipes: LightningCLI" in fence]
    lines = [line for line in fence.splitlines() if not any(word in line for word in NOT_HERE)]
    return words_of("\n".join(lines).replace("phantom_002", "phantom_000").replace("phantom_0003", "phantom_0002"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_what_you_can_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    typed = [shlex.join(words[1:]) for words in to_type()]
    assert len(typed) >= 12 and all(any(line.startswith(start) for line in typed) for start in SMALLER)
    for line in typed:
        more = [option for start, options in SMALLER.items() if line.startswith(start) for option in options]
        assert main([*shlex.split(line), *more]) == 0, line
    runs = tmp_path / "runs"
    assert (runs / f"phantom_{CASES - 1:04d}" / "report.html").is_file()
    assert (runs / "benchmark.json").is_file() and list(runs.glob("wandb/offline-run-*"))
