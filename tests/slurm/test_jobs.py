"""The jobs of `configs/slurm/` on a real Slurm: a shared preparation; a training that is sent back to the queue."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_vmat.data.cohort import read_cohort

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
CASES, EPOCHS = 12, 50  # both ranks validate; the recipe saves every 50 epochs
Environment = dict[str, str]


def submit(job: str, options: list[str], environment: Environment, own: list[str], logs: Path) -> int:
    """The number that `vmat submit` says; the job's log goes to `logs`, the checkout stays clean."""
    command = [sys.executable, "-m", "lightning_vmat.cli", "submit", job, "--memory", "3G", *options, "--", *own]
    environment = environment | {"SBATCH_OUTPUT": str(logs / "%j.log"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number = re.match(r"job (\d+)", done.stdout)
    assert number
    return int(number[1])


def shown(job: int, environment: Environment) -> list[dict[str, str]]:
    """What Slurm knows of a job, or of each job of an array."""
    command = ["scontrol", "--oneliner", "show", "job", str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in done.stdout.splitlines()]


def wait_for(condition: Callable[[], bool], logs: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        text = "\n".join(path.read_text() for path in logs.glob("*.log"))
        assert time.monotonic() < end, f"waited {seconds} s in vain; logs:\n{text}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cohort(slurm: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by an array of two jobs."""
    folder, logs = tmp_path_factory.mktemp("cohort") / "tiny", tmp_path_factory.mktemp("logs")
    own = ["phantom", "--out", str(folder), "--count", str(CASES), "--size", "tiny", "--plan"]
    job = submit("prepare", ["--array", "2", "--cpus_per_task", "1", "--memory", "1500M"], slurm, own, logs)
    wait_for(lambda: {one["JobState"] for one in shown(job, slurm)} <= {"COMPLETED", "FAILED"}, logs, 240)
    states = {one["ArrayTaskId"]: one["JobState"] for one in shown(job, slurm)}
    assert states == {"1": "COMPLETED", "2": "COMPLETED"}, [path.read_text() for path in logs.iterdir()]
    return folder


def test_an_array_of_jobs_makes_one_cohort(cohort: Path) -> None:
    split = read_cohort(cohort).split
    assert sum(len(names) for names in split.values()) == CASES


def test_a_fit_of_two_tasks_goes_on_after_notice(cohort: Path, slurm: Environment, tmp_path: Path) -> None:
    own = ["--config", "configs/teacher.yaml", "--config", "configs/demo/teacher.yaml"]
    own += ["--data.cohort", str(cohort), "--data.voxels", "300"]
    own += ["--trainer.max_epochs", str(EPOCHS), "--trainer.check_val_every_n_epoch", "25", "--data.batch_size", "1"]
    options = ["--name", "teacher", "--tasks_per_node", "2", "--cpus_per_task", "1"]
    job = submit("fit", options, slurm | {"VMAT_RUNS": str(tmp_path / "runs")}, own, tmp_path)
    run = tmp_path / "runs" / f"teacher-{job}"

    def state(*expected: str) -> bool:
        return shown(job, slurm)[0]["JobState"] in expected

    wait_for(lambda: (run / "config.yaml").is_file(), tmp_path, 120)
    subprocess.run(["scancel", "--signal=USR1", str(job)], env=slurm, check=True)
    wait_for(lambda: shown(job, slurm)[0]["Restarts"] == "1", tmp_path, 60)
    stopped = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    wait_for(lambda: state("COMPLETED", "FAILED"), tmp_path, 240)

    log = (tmp_path / f"{job}.log").read_text()
    assert state("COMPLETED"), log
    assert f"stopped at step {stopped} by SIGUSR1" in log
    assert f"resumes from {run}/checkpoints/last.ckpt" in log
    training = len(read_cohort(cohort).split["train"])
    steps = EPOCHS * -(-training // 2)  # two ranks, one case each
    assert stopped < steps
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps
