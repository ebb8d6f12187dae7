"""Logs the figures of a comparison of planners as a W&B Table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lightning_vmat.benchmarks.comparison import Figures


def table_rows(cases: Mapping[str, Mapping[str, Figures]]) -> tuple[list[str], list[list[str | float | None]]]:
    """Columns, and a row for each planner and case; None where a planner does not have a figure.

    Args:
        cases: figures by planner and case.
    """
    figures = list(dict.fromkeys(name for rows in cases.values() for row in rows.values() for name in row))
    rows: list[list[str | float | None]] = [
        [planner, case, *(row.get(name) for name in figures)]
        for planner, rows_of in cases.items()
        for case, row in rows_of.items()
    ]
    return ["planner", "case", *figures], rows


def log_table(
    project: str, folder: Path, settings: Mapping[str, object], cases: Mapping[str, Mapping[str, Figures]]
) -> None:
    """Log a W&B run of job type `benchmark`, with the table and the settings: online with a key, else offline.

    Args:
        project: W&B project.
        folder: folder of W&B's own files, in `wandb/`.
        settings: settings of the comparison.
        cases: figures by planner and case.
    """
    import wandb

    from lightning_vmat.callbacks.wandb_run import mode

    os.makedirs(folder, exist_ok=True)
    columns, rows = table_rows(cases)
    chosen = mode()
    with wandb.init(project=project, dir=folder, job_type="benchmark", config=dict(settings), mode=chosen) as run:  # type: ignore[arg-type]
        run.log({"benchmark": wandb.Table(columns=[*columns], data=rows)})
