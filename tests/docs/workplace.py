"""A folder in which the READMEs' commands are typed, at sizes of seconds, each once and after what it needs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from readme import READMES, ROOT, once, typed

from lightning_vmat.cli import main

CASES = 3
TINY = [f"--count={CASES}", "--size=tiny", "--jobs=1"]
NARROW = ["--model.init_args.network.init_args.channels=[8,16]", "--model.init_args.network.init_args.heads=2"]
QUICK = ["--data.cohort=runs/cohort", "--data.voxels=300"]
ONE_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.strategy=auto"]
ONE_CPU += ["--trainer.devices=1", "--trainer.num_nodes=1"]
SHORT = ["--trainer.limit_train_batches=1", "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
EPOCHS = {"teacher": 5, "distillation": 2, "regression": 2, "learned_optimizer": 2}
"""Recipe -> epochs between two checkpoints."""
SMALLER = {
    "prepare phantom": TINY,
    "prepare phantom --out runs/base": ["--count=1"],
    "prepare phantom --out runs/wished": ["--count=1"],
    "prepare phantom --out runs/prostate_wished": ["--count=1", "--size=tiny"],
    "prepare phantom --out runs/held_out": ["--count=1"],
    "prepare phantom --out runs/hard": ["--count=2", "--hardest=1"],
    "prepare phantom --out runs/held_out_plans": ["--count=1"],
    "prepare phantom --out runs/demo/cohort": ["--count=2"],
    "prepare dicom": ["--size=tiny", "--jobs=1"],
    "prepare unpack": ["--jobs=1"],
    "prepare sheet": ["--count=2"],
    "plan": ["--voxels=300"],
    "plan runs/dicom/phantom_0000": ["--size=tiny"],
    "benchmark planners": ["--voxels=300", "--cases=1"],
    "benchmark optimizers": [
        "--cohort=runs/cohort",
        "--voxels=300",
        "--cases=1",
        "--evaluations=10",
        "--max_evaluations=12",
        "--changed_settings=false",  # thirteen times the work
    ],
    "benchmark dose": ["--sizes=[tiny]", "--repeats=1"],
    "tests/benchmarks/aperture_cost.py": ["--repeats=1"],
    "tests/benchmarks/aperture_optimizers.py": ["--count=1"],
    "tests/benchmarks/cohort_cost.py": ["--size=tiny", "--cases=1", "--voxels=300"],
    "tests/benchmarks/given_wishes.py": ["--seeds=190", "--size=tiny"],
    "tests/benchmarks/wish_response.py": ["--seeds=160", "--size=tiny"],
    "check delivery": ["--step_deg=5"],
    "check delivery runs/dicom_plan": ["--size=tiny"],
    "test": QUICK,
}
"""Start of a command -> options added to it, of which the last one given counts."""
NOT_HERE = {
    "path/to": "data that the reader brings",
    "runs/kbp": "data that the reader brings",
    "kbp_planners.json": "results on that data",
    "cuda": "a GPU",
    "submit": "Slurm: see tests/slurm; its options are checked by a dry run",
    "explore": "a browser, and someone who ends it: see tests/explore",
    "make": "targets that take minutes: `make demo` and `make test`",
    "docker": "Docker: see tests/containers",
    "apptainer": "Apptainer: see tests/containers",
    "sbatch": "Slurm: see tests/slurm",
    "wandb sync": "a server",
    "wandb sweep": "a server",
    "wandb agent": "a server",
    "source": "an environment",
    "-m pytest": "a GPU",
    "tune_optimizers.py": "minutes",
    "explore_speed.py": "minutes",
}
"""Part of a command -> what it needs that is not here."""
OUTPUTS = ("--out", "--json", "--figure")


def can_run(words: list[str]) -> bool:
    """Whether a command needs nothing but what other commands make."""
    line = shlex.join(words)
    return not any(re.search(rf"(^|[ /]){re.escape(part)}\b", line) or part in words for part in NOT_HERE)


def commands() -> list[list[str]]:
    """Every command of the READMEs that is typed here."""
    return [words for words in once([words for path in READMES for words in typed(path)]) if can_run(words)]


def option(words: list[str], *names: str) -> Iterator[str]:
    """Values of an option."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            yield value if equals else following


def recipe(words: list[str]) -> dict[str, object]:
    """The shipped configurations that a `vmat fit` reads, the later over the earlier; empty for other commands."""
    content: dict[str, object] = {}
    if words[:2] == ["vmat", "fit"]:
        for value in option(words, "--config"):
            if value.startswith("configs/"):
                content = merged(content, yaml.safe_load((ROOT / value).read_text()))
    return content


def merged(below: dict[str, object], above: dict[str, object]) -> dict[str, object]:
    """Settings with others laid over them, key by key."""
    both = dict(below)
    for key, value in above.items():
        under = both.get(key)
        both[key] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


def outputs(words: list[str]) -> list[str]:
    """Files and folders that a command writes."""
    made = list(option(words, *OUTPUTS))
    trainer = recipe(words).get("trainer")
    return [*made, *([trainer["default_root_dir"]] if isinstance(trainer, dict) else [])]


def inputs(words: list[str]) -> list[str]:
    """Files and folders below `runs/` that a command reads, also those that its configuration names."""
    given = " ".join(words).replace("=", " ").replace(",", " ").split()
    model = yaml.safe_dump(recipe(words).get("model", {}))
    named = [word for word in given if word.startswith(("runs/", "tests/benchmarks/")) and not word.endswith(".py")]
    return [path for path in [*named, *re.findall(r"runs/[\w/]+", model)] if path not in outputs(words)]


def smaller(words: list[str]) -> list[str]:
    """The command with the options that make it quick, and the last case of a cohort in place of a later one."""
    line = re.sub(r"phantom_(\d{4})", _last_case, shlex.join(words[1:]))
    more = [extra for start, options in SMALLER.items() if line.startswith(f"{start} ") for extra in options]
    if line.startswith("fit "):
        name = Path(next(option(words, "--config"))).stem
        name = name if name in EPOCHS else "teacher"  # `runs/teacher/config.yaml`
        more += [*QUICK, *ONE_CPU, *SHORT, f"--trainer.max_epochs={EPOCHS[name]}"]
        more += ["--model.init_args.horizon=6"] if name == "learned_optimizer" else NARROW
    return [*shlex.split(line), *more]


def _last_case(match: re.Match[str]) -> str:
    number = int(match[1])
    first = number if number == 161 else 160 * (number >= 160)  # where the READMEs' cohorts begin
    return f"phantom_{min(number, first + CASES - 1):04d}"


@dataclass
class Workplace:
    """Types commands in a folder.

    Args:
        folder: the folder, which is the current one while a command runs.
    """

    folder: Path
    done: set[str] = field(default_factory=set)
    makers: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "configs").symlink_to(ROOT / "configs")
        (self.folder / "tests/benchmarks").mkdir(parents=True)  # not the repository's, whose results stay
        for words in commands():
            for path in outputs(words):
                self.makers.setdefault(path, words)

    def run(self, words: list[str]) -> None:
        """Type a command, after those that make what it reads; nothing if it was typed before."""
        line = shlex.join(words)
        if line in self.done:
            return
        for path in inputs(words) + inputs(["vmat", *smaller(words)]):
            maker = self.maker(path)
            if maker is not None and maker != words:
                self.run(maker)
        if words[0] == "python":
            script, *options = smaller(words)
            subprocess.run([sys.executable, ROOT / script, *options], check=True)
        else:
            allowed = (0, 1) if words[1] == "check" else (0,)  # 1: out of tolerance, with sectors as wide as these
            assert main(smaller(words)) in allowed, line
        assert all((self.folder / path).exists() for path in outputs(words)), line
        self.done.add(line)

    def maker(self, path: str) -> list[str] | None:
        """The command that writes a path or the folder that holds it."""
        for parent in (path, *(str(folder) for folder in Path(path).parents)):
            if parent in self.makers:
                return self.makers[parent]
        return None
