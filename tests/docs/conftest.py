"""One workplace for all commands of the READMEs, so that what one test trains another uses."""

from __future__ import annotations

import pytest
from workplace import Workplace


@pytest.fixture(scope="session")
def shared_workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("readme"))


@pytest.fixture
def workplace(shared_workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """The shared workplace as current folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(shared_workplace.folder)
    return shared_workplace
