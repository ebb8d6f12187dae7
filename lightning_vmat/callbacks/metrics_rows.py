"""Rows of a stopped run's metrics file that the run will write once more."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning_vmat.files.atomic import atomic_file


def drop_rows_from(path: Path, step: int) -> None:
    """Drop rows of a step and later ones, and a last row that was cut short.

    Args:
        path: `metrics.csv` as `CSVLogger` writes it; nothing happens if there is none.
        step: the first to drop.
    """
    if not path.is_file():
        return
    header, *rows = [*csv.reader(io.StringIO(path.read_text()))] or [[]]
    if "step" not in header:  # cut short while its header was written anew
        path.unlink()
        return
    place = header.index("step")
    kept = [row for row in rows if len(row) == len(header) and int(row[place]) < step]
    with atomic_file(path) as draft, draft.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])
