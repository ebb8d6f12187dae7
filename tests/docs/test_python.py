"""Every Python block of the READMEs runs as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from readme import READMES, blocks, name_of
from workplace import Workplace

import lightning_vmat

PYTHON = [(path, block) for path in READMES for block in blocks(path, "python")]
LAZY = "import lightning_vmat as vmat"  # the names of the package itself


@pytest.mark.slow
@pytest.mark.parametrize(("path", "block"), PYTHON, ids=[name_of(path) for path, _ in PYTHON])
def test_a_block_runs(path: Path, block: str, workplace: Workplace) -> None:
    if LAZY in block and not hasattr(lightning_vmat, "phantom"):
        pytest.skip("lightning_vmat has no `phantom` yet")
    exec(compile(block, str(path), "exec"), {"__name__": "readme"})
    if "write_report" in block:
        assert (workplace.folder / "plan.html").stat().st_size > 10_000


def test_there_are_blocks() -> None:
    assert len(PYTHON) >= 4 and PYTHON[0][0] == READMES[0]
