"""A real Slurm of one node for the tests marked `slurm`, which run only when asked for: `make test-slurm`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("slurm_up.sh")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Also the items of other folders come by here."""
    if "slurm" not in config.getoption("-m"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason="a Slurm must be started for it: make test-slurm"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster, and jobs find `vmat`."""
    folder = tmp_path_factory.mktemp("slurm")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([SCRIPT, folder], check=True, timeout=60)
    yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run([SCRIPT, folder, "down"], check=True, timeout=60)
