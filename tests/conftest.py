"""What every test starts from: one thread and one seed, so that results depend neither on cores nor on order."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
