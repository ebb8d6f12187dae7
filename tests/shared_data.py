"""Data that the repository does not hold: in `VMAT_SHARED_DATA`, else in `shared/data` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("VMAT_SHARED_DATA", Path(__file__).parents[2] / "shared/data"))
OPEN_KBP = SHARED / "open-kbp"
