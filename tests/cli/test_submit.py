"""`vmat submit` hands good jobs to Slurm as they were meant, and refuses bad ones before they wait in a queue."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from lightning_vmat.cli import main
from lightning_vmat.commands.submit import FLAGS

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "configs" / "slurm").glob("*.sbatch"))
FIT = ["--config", "configs/teacher.yaml", "--config", "configs/demo/teacher.yaml"]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_job_becomes_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--name", "teacher", "--nodes", "2", "--tasks-per-node", "4", "--gpus_per_node=4", "--time", "1-00:00"]
    assert main(["submit", "fit", *options, "--dry-run", "--", *FIT, "--trainer.max_epochs", "3"]) == 0
    expected = ["--job-name=teacher", "--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=1-00:00"]
    script = ["configs/slurm/fit.sbatch", *FIT, "--trainer.max_epochs", "3"]
    command = shlex.split(capsys.readouterr().out)
    assert command[:2] == ["sbatch", "--parsable"] and command[-len(script) :] == script
    assert sorted(command[2 : -len(script)]) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["fit", "--nodes", "0", "--", *FIT], "nodes 0"),
        (["fit", "--time", "soon", "--", *FIT], "time soon"),
        (["fit", "--array", "3", "--", *FIT], "array"),
        (["fit", "--", *FIT, "--trainer.max_epohcs", "3"], "max_epohcs"),
        (["fit", "--", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["fit"], "no recipe"),
        (["fit", "--script", "/nowhere.sbatch", "--", *FIT], "/nowhere.sbatch"),
        (["prepare", "--", "phantom", "--out", "x", "--cuont", "3"], "--cuont"),
        (["prepare", "--", "phantom", "--count", "3"], "out"),
        (["prepare", "--", "phantom", "--out", "x", "--shard", "1/2"], "--shard"),
        (["prepare", "--", "pack", "x", "--out", "x.safetensors"], "pack"),
        (["prepare"], "nothing"),
        (["sweep", "--", "one", "two"], "one two"),
        (["swoop", "--", "one"], "swoop"),
    ],
)
def test_a_bad_job_is_refused(options: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", options[0], "--dry_run", *options[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("vmat: error: ") and error.count("\n") == 1 and named in error


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="sbatch is here")
def test_without_slurm_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "sweep", "--", "me/vmat/1a2b3c"]) == 2
    assert "sbatch: no such command" in capsys.readouterr().err


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_script_is_sound_and_sets_what_it_needs(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    lines = path.read_text().splitlines()
    directives = {line.split()[1].partition("=")[0] for line in lines if line.startswith("#SBATCH")}
    known = {f"--{flag}" for flag in FLAGS.values()} | {"--signal", "--requeue", "--open-mode", "--output"}
    assert directives <= known
    assert {"--time", "--mem", "--cpus-per-task", "--output"} <= directives
