"""A cohort of small phantoms, and a configuration that trains one weight on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from one_weight import configuration

from lightning_vmat.cases.case_files import write_case
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.data.cohort import Cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases in each part; the last of each has maps of another shape."""
    root = tmp_path_factory.mktemp("cohort")
    names = list("abcdefghi")
    for seed, name in enumerate(names):
        case = make_phantom(seed, "tiny")
        if seed % 3 == 2:
            case = replace(case, arcs=(replace(case.arcs[0], control_points=8),))
        write_case(case, root / name)
    Cohort(root, {"train": names[:3], "validation": names[3:6], "test": names[6:]}).write({})
    return root


@pytest.fixture
def config(cohort: Path, tmp_path: Path) -> Path:
    """A whole configuration; its run goes to `run` beside it."""
    return configuration(cohort, tmp_path)
