"""The images' build steps, as far as they can be taken without a container: what is copied suffices to install from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
APPTAINER = ROOT / "docker" / "apptainer.def"
HARMLESS = """
pip() { command pip "$@" --dry-run; }
useradd() { command useradd --prefix "$FOLDER" "$@"; }
"""  # nothing is installed, no user added to this machine


def instructions() -> list[tuple[str, str]]:
    """Instruction and its arguments, in order, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["cuda", "cpu"])
def test_each_step_runs_on_what_was_copied_before(variant: str, tmp_path: Path) -> None:
    """pip resolves all versions but installs nothing; the user is added to files of its own."""
    (tmp_path / "etc").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    environment = os.environ | {"VARIANT": variant, "PATH": path, "FOLDER": str(tmp_path)}
    work = tmp_path / "work"
    work.mkdir()
    for word, rest in instructions():
        if word == "COPY":
            *names, place = rest.split()
            for name in names:
                copy(ROOT / name, work / place)
        if word == "RUN" and not ("useradd" in rest and os.getuid()):
            done = subprocess.run(
                ["bash", "-eu", "-c", HARMLESS + rest], cwd=work, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr


def copy(source: Path, place: Path) -> None:
    """As COPY does: a folder's contents, or a file into a folder."""
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, place)


def test_what_is_copied_is_let_through_and_exists() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    copied = [name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]]
    assert sorted(f"!{name}" for name in copied) == sorted(line for line in ignore if line.startswith("!"))
    assert all((ROOT / name).exists() for name in copied)


def test_both_images_are_made_alike() -> None:
    image = APPTAINER.read_text()
    base = next(rest for word, rest in instructions() if word == "FROM")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)  # pinned
    assert f"From: {base}\n" in image
    post = squeezed(image.replace("\\\n", ""))
    for word, rest in instructions():
        if word == "RUN" and "pip" in rest:
            assert squeezed(rest) in post
        if word == "COPY":
            assert all(f"{name} /opt/lightning_vmat/{name}" in image for name in rest.split()[:-1])


def test_the_image_runs_as_nobody_in_particular() -> None:
    words = dict(instructions())
    assert words["USER"] == "1000" and words["ENTRYPOINT"] == '["vmat"]'
