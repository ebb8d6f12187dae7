"""Every command in the documents is right: its options are parsed by what would run it, its files are there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from readme import DOCUMENTS, ROOT, mentioned, once, typed, words_of
from wandb.cli.cli import cli as wandb_cli

from lightning_vmat.cli import main, split_command
from lightning_vmat.commands.arguments import parse
from lightning_vmat.commands.table import COMMANDS, OWN_PARSERS

RECIPES = {"teacher", "distillation", "learned_optimizer"}
TYPED = once([words for path in DOCUMENTS for words in typed(path)])
MENTIONED = once([words for path in DOCUMENTS for words in mentioned(path)])


@pytest.fixture(autouse=True)
def checkout_with_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where a reader does, after the runs whose configurations the documents name."""
    for name in ("configs", "tests", "docker", "pyproject.toml", ".constraints.txt", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    for recipe in RECIPES:
        (tmp_path / "runs" / recipe).mkdir(parents=True)
        for name in (f"{recipe}.yaml", "network.yaml"):
            shutil.copy(ROOT / "configs" / name, tmp_path / "runs" / recipe)
        (tmp_path / "runs" / recipe / f"{recipe}.yaml").rename(tmp_path / "runs" / recipe / "config.yaml")
    monkeypatch.chdir(tmp_path)


def check_vmat(words: list[str]) -> None:
    name, options = split_command(words)
    if name == "submit":
        assert main(["submit", *options[:1], "--dry_run", *options[1:]]) == 0
    elif name in OWN_PARSERS:
        with pytest.raises(SystemExit) as stopped:
            main([name, *options, "--print_config"])
        assert stopped.value.code in (None, 0)
    else:
        parse(function_of(name), options, f"vmat {name}")


def function_of(name: str) -> Callable[..., object]:
    """The function behind a command."""
    module, function = COMMANDS[name][0].split(":")
    found: Callable[..., object] = getattr(import_module(f"lightning_vmat.commands.{module}"), function)
    return found


def check_mention(words: list[str]) -> None:
    """The text may name a command without all that it needs: `vmat prepare`, `vmat plan --wish Rectum=4`."""
    words = [word for word in words if word not in ("COMMAND", "--config")]
    if words[0] != "vmat" or "--out" in words or any(word.startswith("configs/") for word in words):
        CHECKS[words[0]](words[1:])
        return
    plain = " ".join(word for word in words[1:3] if not word.startswith("-"))
    assert any(f"{name} ".startswith(f"{plain} ") or plain.startswith(f"{name} ") for name in COMMANDS), plain
    named = [word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    if set(named) - {"help", "version"}:
        name, _ = split_command(words[1:])
        assert set(named) <= set(signature(function_of(name)).parameters), named


def check_make(words: list[str]) -> None:
    subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)


def check_python(words: list[str]) -> None:
    files = words[2:] if words[:2] == ["-m", "pytest"] else words[:1]
    assert files and all(Path(word).exists() for word in files)


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.fullmatch(r"lightning-vmat\[(\w+)\]", words[-1])
    assert named and named[1] in extras


def check_sbatch(words: list[str]) -> None:
    """Its options are known by the scripts' own tests; what the script passes on is checked as for `vmat submit`."""
    place = next(i for i, word in enumerate(words) if word.endswith(".sbatch"))
    assert (
        main(["submit", Path(words[place]).stem, "--dry_run", "--script", words[place], "--", *words[place + 1 :]]) == 0
    )


def check_wandb(words: list[str]) -> None:
    arguments = wandb_cli.commands[words[0]].make_context(words[0], words[1:], resilient_parsing=True).params
    assert any(arguments.values())
    assert words[0] != "sweep" or Path(words[1]).is_file()


def check_image(words: list[str]) -> None:
    """Files that a build reads, or the `vmat` command that a container runs."""
    if words[0] == "build":
        assert any((ROOT / word).is_file() for word in words if "/" in word and ":" not in word)
        return
    place = next(i for i, word in enumerate(words) if word.startswith("lightning-vmat"))
    check_vmat(words[place + 1 :])


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "vmat": check_vmat,
    "make": check_make,
    "python": check_python,
    "pip": check_pip,
    "sbatch": check_sbatch,
    "wandb": check_wandb,
    "docker": check_image,
    "apptainer": check_image,
    "source": lambda words: None,  # the environment that `make` makes
}


@pytest.mark.parametrize("words", TYPED, ids=shlex.join)
def test_a_shown_command_is_right(words: list[str]) -> None:
    assert words[0] in CHECKS, f"shown: {words[0]}, expected one of {', '.join(CHECKS)}"
    CHECKS[words[0]](words[1:])


@pytest.mark.parametrize("words", MENTIONED, ids=shlex.join)
def test_a_mentioned_command_is_right(words: list[str]) -> None:
    check_mention(words)


@pytest.mark.parametrize(
    "line",
    [
        "vmat prepare phantom --out x --cuont 3",
        "vmat prepare phantoms --out x",
        "vmat fit --config configs/nothing.yaml",
        "vmat fit --config configs/teacher.yaml --trainer.max_epohcs 3",
        "vmat submit fit --nods 2 -- --config configs/teacher.yaml",
        "make everything",
        "pip install lightning-vmat[nothing]",
        "sbatch configs/slurm/nothing.sbatch",
        "wandb sweep configs/sweeps/nothing.yaml",
        "docker run lightning-vmat fit --confg configs/teacher.yaml",
        "docker build -f docker/Nothing .",
    ],
)
def test_a_wrong_command_is_found(line: str) -> None:
    (words,) = words_of(line)
    with pytest.raises((AssertionError, ValueError, subprocess.CalledProcessError, pytest.fail.Exception)):
        CHECKS[words[0]](words[1:])


@pytest.mark.parametrize(
    "line", ["vmat plam", "vmat plan --whish Rectum=4", "make everything", "python tests/nothing.py"]
)
def test_a_wrong_mention_is_found(line: str) -> None:
    (words,) = words_of(line)
    with pytest.raises((AssertionError, ValueError, subprocess.CalledProcessError)):
        check_mention(words)
