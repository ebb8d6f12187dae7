"""`vmat explore` from the command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import lightning_vmat as vmat
from lightning_vmat.cli import main


@pytest.mark.slow
def test_the_command_prints_a_link_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    vmat.write_case(vmat.phantom(0, size="tiny"), tmp_path / "case")
    command = [sys.executable, "-m", "lightning_vmat.cli", "explore", "case", "--planner", "conventional"]
    process = subprocess.Popen(
        [*command, "--voxels", "300"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(vmat.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline().strip()
        assert "phantom_0000" in first and re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", second)
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(second, timeout=60) as page:
            assert b"Plan by wish" in page.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(second.partition("?")[0], timeout=60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and out == "ended\n" and err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "nothing"),
        (["--port", "99999"], "port 99999: expected 0 to 65535"),
        (["--port", "-1"], "port -1: expected 0 to 65535"),
    ],
)
def test_bad_input_ends_in_one_line(
    tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explore", str(tmp_path / "nothing"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vmat: error: ") and error.count("\n") == 1 and named in error


def test_options_for_dicom_are_refused_for_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vmat.write_case(vmat.phantom(0, size="tiny"), tmp_path / "case")
    assert main(["explore", str(tmp_path / "case"), "--size", "tiny", "--planner", "none"]) == 2
    assert "size tiny: expected with a DICOM folder only" in capsys.readouterr().err
