"""`vmat completion`: the script in a real shell completes commands, options and values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lightning_vmat.cli import main
from lightning_vmat.commands.table import COMMANDS

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p vmat | sed -E 's/.*-F ([^ ]+).*/\\1/')
"$function" vmat "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion script of bash."""
    path = tmp_path_factory.mktemp("completion") / "vmat.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert main(["completion", "bash"]) == 0
    return path


def completed(script: Path, words: list[str]) -> set[str]:
    """What bash offers for the last word of a command line."""
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", script, *words], capture_output=True, text=True, check=True, cwd=script.parent
    )
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_every_command_is_offered(script: Path) -> None:
    assert completed(script, ["vmat", ""]) >= {name.split()[0] for name in COMMANDS}
    kinds = {name.split()[1] for name in COMMANDS if name.startswith("prepare ")}
    assert completed(script, ["vmat", "prepare", ""]) >= kinds


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["vmat", "pre"], {"prepare"}),
        (["vmat", "plan", "--plann"], {"--planner"}),
        (["vmat", "prepare", "phantom", "--si"], {"--size"}),
        (["vmat", "fit", "--conf"], {"--config"}),
        (["vmat", "fit", "--trainer.max_ep"], {"--trainer.max_epochs"}),
        (["vmat", "submit", "f"], {"fit"}),
        (["vmat", "completion", "z"], {"zsh"}),
    ],
)
def test_a_word_is_completed(script: Path, words: list[str], offered: set[str]) -> None:
    assert completed(script, words) >= offered


def test_files_are_offered_for_a_configuration(script: Path) -> None:
    (script.parent / "recipe.yaml").touch()
    assert "recipe.yaml" in completed(script, ["vmat", "fit", "--config", "rec"])


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_reads_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "_vmat").write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", tmp_path / "_vmat"], check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "fish" in capsys.readouterr().err
