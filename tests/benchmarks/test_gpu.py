"""The script for a machine with a GPU, up to its first CUDA call, and all other commands of it on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("gpu.sh")


def run(out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(SCRIPT.parents[2]), **settings}
    command = ["bash", str(SCRIPT), str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_machine_without_a_gpu_is_told_in_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path / "out")
    assert ended.returncode != 0 and ended.stdout == ""
    assert ended.stderr == "gpu.sh: no CUDA device, expected one (or DEVICE=cpu)\n"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_every_command_of_the_script_works_on_a_cpu(tmp_path: Path) -> None:
    small = {"SIZE": "tiny", "VOXELS": "300", "CASES": "1", "JOBS": "1", "RECIPES": "regression"}
    ended = run(tmp_path, DEVICE="cpu", PRECISIONS="32-true", PLANNERS="conventional@4,regression@6", **small)
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["dose"]["rows"] and "parity" not in results
    assert results["training"]["regression-32-true"]["throughput/cases_per_s"] > 0
    assert set(results["planning"]) == {"base.json", "clinical.json"}
    for size, cases in (("base", 1), ("clinical", 2)):
        planning = results["planning"][f"{size}.json"]
        assert {name: len(rows) for name, rows in planning["cases"].items()} == {
            "conventional@4": cases,
            "regression@6": cases,
        }
        stages = planning["stage_quartiles_s"]["regression@6"]
        assert set(stages) == {"problem", "start", "sequencing", "apertures"}
        assert all(seconds[1] > 0 for seconds in stages.values())
