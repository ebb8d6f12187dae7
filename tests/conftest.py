"""What every test starts from: one thread, one seed and the package's own names, whatever ran before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """What a test registers ends with it: tables list all optimizers, and files share processes in any order."""
    from lightning_vmat import registry  # not above: the import hook that checks shapes comes after this file
    from lightning_vmat.api.shipped_planners import PLANNERS
    from lightning_vmat.cases.readers import READERS
    from lightning_vmat.objectives.protocol import OBJECTIVE_TYPES
    from lightning_vmat.planning.planners import OPTIMIZERS

    known: list[dict[Any, Any]] = [registry._owners, PLANNERS, OPTIMIZERS, OBJECTIVE_TYPES, READERS]
    before = [names.copy() for names in known]
    yield
    for names, kept in zip(known, before, strict=True):
        names.clear()
        names.update(kept)
