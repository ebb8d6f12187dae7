"""`vmat submit`: validates the options of a job of `configs/slurm/`, then submits it to Slurm."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path
from typing import Literal

from lightning_vmat.commands.arguments import parse

FLAGS = {"name": "job-name", "array": "array", "nodes": "nodes", "tasks_per_node": "ntasks-per-node"}
FLAGS |= {"cpus_per_task": "cpus-per-task", "gpus_per_node": "gpus-per-node", "memory": "mem", "time": "time"}
FLAGS |= {"partition": "partition", "account": "account"}
"""Option of `vmat submit` -> option of sbatch."""
EACH_TURN = ("--ckpt_path", "--resume")
SET_BY_JOB = ("--trainer.default_root_dir", "--trainer.num_nodes", "--trainer.devices")
SHARED = ("phantom", "open-kbp", "dicom", "portpy", "unpack")  # preparations that several jobs can share
TIME = re.compile(r"(\d+-)?\d+(:\d{2}){0,2}")  # minutes; or [days-]hours[:minutes[:seconds]]


def run(arguments: list[str]) -> None:
    """Submit a job; the arguments after `--` belong to the job.

    Raises:
        ValueError: an option of the job or of `vmat submit` that is wrong.
    """
    options, own = split_at_dashes(arguments[1:])
    submit(**{**parse(submit, options, prog="vmat submit"), "arguments": own})


def split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments before and after a lone `--`."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def submit(
    job: Literal["prepare", "fit", "sweep"],
    *,
    name: str | None = None,
    array: int | None = None,
    nodes: int | None = None,
    tasks_per_node: int | None = None,
    cpus_per_task: int | None = None,
    gpus_per_node: int | None = None,
    memory: str | None = None,
    time: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    script: Path | None = None,
    dry_run: bool = False,
    arguments: list[str] | None = None,
) -> None:
    """Check a job and submit it to Slurm: `vmat submit fit --nodes 2 -- --config configs/teacher.yaml`.

    Options that are not given keep the values of the script. After `--` follow the arguments of the job: those of
    `vmat prepare`, those of `vmat fit`, or the name of a W&B sweep.

    Args:
        job: Script of `configs/slurm/` to submit.
        name: Name of the job, its log and its run directory.
        array: Number of jobs that share a preparation, or of trials of a sweep.
        nodes: Number of machines.
        tasks_per_node: Processes on each machine; one for each GPU.
        cpus_per_task: Cores of each process.
        gpus_per_node: GPUs of each machine.
        memory: Memory of each machine, such as `32G`.
        time: Time limit of one run of the job, such as `12:00:00` or `2-00:00:00`; a requeued fit starts a new one.
        partition: Partition of the cluster.
        account: Account to charge.
        script: Script to submit in place of the shipped one.
        dry_run: Print the command, and submit nothing.
        arguments: The arguments after `--`.

    Raises:
        ValueError: an option that is wrong, or sbatch refuses the job.
    """
    given = {key: value for key, value in locals().items() if key in FLAGS and value is not None}
    script = script or Path("configs/slurm") / f"{job}.sbatch"
    own = arguments or []
    check(job, given, script, own)
    flags = [f"--{FLAGS[key]}={f'1-{value}' if key == 'array' else value}" for key, value in given.items()]
    command = ["sbatch", "--parsable", *flags, str(script), *own]
    if dry_run:
        print(shlex.join(command))
        return
    number = hand_over(command)
    print(f"job {number} submitted; status: squeue --job {number}; cancel: scancel {number}")


def check(job: str, given: dict[str, object], script: Path, own: list[str]) -> None:
    """Validate the options before the job is queued.

    Raises:
        ValueError: the first thing that is wrong.
    """
    if not script.is_file():
        raise ValueError(f"{script}: no such script, expected the checkout as working folder, or --script")
    for key, value in given.items():
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{key} {value}: expected at least 1")
    if "time" in given and not TIME.fullmatch(str(given["time"])):
        raise ValueError(f"time {given['time']}: expected minutes, hours:minutes:seconds or days-hours:minutes")
    if "array" in given and job == "fit":
        raise ValueError("array: a fit is one job; expected with `prepare` or `sweep`")
    CHECKS[job](own)


def check_prepare(own: list[str]) -> None:
    """Validate the options of `vmat prepare`."""
    from lightning_vmat.commands import prepare

    kind, options = (own or ["nothing"])[0], own[1:]
    if kind not in SHARED:
        raise ValueError(f"prepare {kind!r}: expected one of {', '.join(SHARED)}")
    for option in options:
        if option.partition("=")[0] in ("--shard", "--jobs"):
            raise ValueError(f"{option}: the job sets it itself, by --array and --cpus_per_task")
    function = getattr(prepare, kind.replace("-", "_"))
    parse(function, options, f"vmat prepare {kind}")


def check_fit(own: list[str]) -> None:
    """Validate the options of `vmat fit`."""
    from lightning_vmat.commands import training

    if not any(option.partition("=")[0] in ("--config", "-c") for option in own):
        raise ValueError("fit: no recipe; expected `-- --config configs/teacher.yaml` or another, and its options")
    for option in (word.partition("=")[0] for word in own):
        if option in EACH_TURN:
            raise ValueError(f"{option}: not for jobs; a requeued job resumes from its last checkpoint by itself")
        if option in SET_BY_JOB:
            raise ValueError(f"{option}: the job sets it itself, by --name, --nodes, --tasks_per_node and $VMAT_RUNS")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        training.run(["fit", *own, "--print_config"])


def check_sweep(own: list[str]) -> None:
    """Validate the name of a sweep."""
    if len(own) != 1 or not re.fullmatch(r"([\w.-]+/){0,2}[\w.-]+", own[0]):
        raise ValueError(f"sweep {' '.join(own)!r}: expected one ENTITY/PROJECT/SWEEP, as `wandb sweep` prints it")


CHECKS = {"prepare": check_prepare, "fit": check_fit, "sweep": check_sweep}


def hand_over(command: list[str]) -> str:
    """Run sbatch.

    Returns:
        The job's number.

    Raises:
        ValueError: there is no sbatch, or it refuses the job.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ValueError("sbatch: no such command; expected on a machine that submits to Slurm") from error
    if done.returncode:
        raise ValueError(f"sbatch refuses the job: {done.stderr.strip()}")
    return done.stdout.strip().partition(";")[0]
