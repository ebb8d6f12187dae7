"""`vmat` without running a command: help, unknown words, one line for bad input."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from lightning_vmat.cli import dispatch, main, one_line, split_command
from lightning_vmat.commands.arguments import call_from_arguments, spelled_out
from lightning_vmat.commands.table import COMMANDS
from lightning_vmat.commands.terminal import linked


def test_help_names_every_command_and_is_quick() -> None:
    code = "import sys; from lightning_vmat.cli import main; status = main(['--help']); "
    code += "sys.exit(status or sum(name in sys.modules for name in ('torch', 'lightning', 'jsonargparse', 'numpy')))"
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 2.0
    assert all(name in result.stdout for name in COMMANDS)


def test_every_command_leads_to_a_function() -> None:
    from importlib import import_module

    for target, _ in COMMANDS.values():
        module, function = target.split(":")
        assert callable(getattr(import_module(f"lightning_vmat.commands.{module}"), function))


@pytest.mark.parametrize("group", ["prepare", "check", "benchmark"])
def test_help_of_a_group_names_its_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all((name in shown) == name.startswith(f"{group} ") for name in COMMANDS if " " in name)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["plann"], "'plann'"),
        (["prepare"], "prepare phantom"),
        (["prepare", "phantoms", "--out", "x"], "'prepare phantoms'"),
    ],
)
def test_an_unknown_command_is_named(argv: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("vmat: error: unknown command") and error.count("\n") == 1
    assert named in error


def test_the_longest_command_wins() -> None:
    assert split_command(["prepare", "phantom", "--count", "2"]) == ("prepare phantom", ["--count", "2"])
    assert split_command(["plan", "case"]) == ("plan", ["case"])


def test_a_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMAT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["nothing"])
    with pytest.raises(ValueError, match="unknown command"):
        dispatch(["nothing"])


def test_an_error_of_many_lines_becomes_one() -> None:
    assert one_line(ValueError("first\n   second\n")) == "first second"
    assert one_line(ValueError()) == "ValueError"


Call = tuple[Path, Path, int, str, bool]


def command(
    case: Path, *, out: Path, count: int = 3, size: Literal["demo", "base"] = "demo", plan: bool = False
) -> None:
    """Do something to a case.

    Args:
        case: the case's folder.
        out: where to write.
        count: how many.
        size: how large.
        plan: whether to plan, too.
    """
    calls.append((case, out, count, size, plan))


calls: list[Call] = []


def test_a_path_is_a_link_on_a_terminal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("a folder") / "report.html"
    target = f"{tmp_path.as_uri()}/a%20folder/report.html"
    link = f"\x1b]8;;{target}\x1b\\a folder/report.html\x1b]8;;\x1b\\"
    assert linked(path, terminal=True) == link and linked(path, terminal=False) == "a folder/report.html"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert linked(path) == link
    monkeypatch.setenv("TERM", "dumb")
    assert linked(path) == "a folder/report.html"
    monkeypatch.undo()
    assert linked(path) == "a folder/report.html"


def test_positional_and_keyword_only_parameters() -> None:
    calls.clear()
    call_from_arguments(command, ["here", "--out", "there", "--plan", "true", "--size=base"], prog="vmat command")
    assert calls == [(Path("here"), Path("there"), 3, "base", True)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ([], []),
        (["--plan"], ["--plan", "true"]),
        (["--plan", "--count", "5"], ["--plan", "true", "--count", "5"]),
        (["--plan", "false", "--count=5"], ["--plan", "false", "--count=5"]),
        (["--out", "a-b/--plan-c", "--si-ze=x-y"], ["--out", "a-b/--plan-c", "--si_ze=x-y"]),
    ],
)
def test_hyphens_and_lone_switches(written: list[str], meant: list[str]) -> None:
    assert spelled_out(written, command) == meant


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["here"], "out"),
        (["here", "--out", "there", "--cuont", "3"], "--cuont"),
        (["here", "--out", "there", "--count", "many"], "count"),
        (["here", "--out", "there", "--size", "huge"], "huge"),
        (["--out", "there"], "case"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call_from_arguments(command, arguments, prog="vmat command")


@pytest.mark.parametrize("name", ["plan", "explore", "check delivery", "prepare dicom", "commission", "submit"])
def test_a_command_without_arguments_names_those_that_it_needs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(name.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("vmat: error: the following arguments are required: ") and error.count("\n") == 1
    assert f"(see vmat {name} --help)" in error


def test_the_value_of_an_option_without_default_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "case", "--out", "plan", "--size", "huge"]) == 2
    assert "'clinical']. Got value: huge (see vmat plan --help)" in capsys.readouterr().err


def test_help_of_a_command_comes_from_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call_from_arguments(command, ["--help"], prog="vmat command")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "vmat command" in text and "where to write" in text and "the case's folder" in text
