"""Removes rows of a metrics file that a resumed run writes again."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning_vmat.files.atomic import atomic_file


def drop_rows_from(path: Path, step: int) -> None:
    """Drop the rows of a step and later ones, and an incomplete last row.

    Args:
        path: `metrics.csv` as `CSVLogger` writes it; nothing happens if there is none.
        step: first step to drop.
    """
    if not path.is_file():
        return
    header, *rows = [*csv.reader(io.StringIO(path.read_text()))] or [[]]
    if "step" not in header:  # stopped while its header was rewritten
        path.unlink()
        return
    place = header.index("step")
    kept = [row for row in rows if len(row) == len(header) and int(row[place]) < step]
    with atomic_file(path) as draft, draft.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])
