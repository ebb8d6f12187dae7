"""A cohort of small phantoms, and a configuration that trains one weight on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_weight import configuration

from lightning_vmat.data.case_files import write_case
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.phantom import make_phantom


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cohort")
    names = list("abcdefg")
    for seed, name in enumerate(names):
        write_case(make_phantom(seed, "tiny"), root / name)
    Cohort(root, {"train": names[:3], "validation": names[3:5], "test": names[5:]}).write({})
    return root


@pytest.fixture
def config(cohort: Path, tmp_path: Path) -> Path:
    """A whole configuration; its run goes to `run` beside it."""
    return configuration(cohort, tmp_path)
