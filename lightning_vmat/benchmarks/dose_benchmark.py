"""Speed of the dose operators, compared with stored matrices and with pydosert."""

from __future__ import annotations

import json as text
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from lightning_vmat.benchmarks.dose_baselines import pydosert_rows, sparse_rows
from lightning_vmat.benchmarks.dose_judging import judging_row, setup_row
from lightning_vmat.benchmarks.dose_speed import Device, SpeedRow, as_table, check_device, pencil_beam_row
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.files.atomic import atomic_file, check_file


def time_dose(device: str, sizes: Sequence[str], repeats: int, json: Path | None) -> str:
    """Measure the speed of the operators of phantoms of several sizes.

    Args:
        device: `cpu` or `cuda`.
        sizes: sizes of the phantoms.
        repeats: number of calls of which the median is taken.
        json: file for the figures; None for none.

    Returns:
        The table, as text.

    Raises:
        ValueError: an unknown size, a missing device, fewer than one repeat, or a folder in place of the file.
    """
    for size in sizes:
        get_size(size)
    if repeats < 1:
        raise ValueError(f"{repeats} repeats: expected at least 1")
    check_device(device)
    check_file(json)
    about = Device.measure(device, repeats)
    rows = [row for size in sizes for row in _rows(size, about, repeats)]
    if json is not None:
        figures = {"device": asdict(about), "rows": [asdict(row) for row in rows]}
        with atomic_file(json) as draft:
            draft.write_text(text.dumps(figures, indent=1))
    return (
        f"{about.hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        f"copy {about.copy_gb_s:.1f} GB/s, single precision product {about.matmul_gflop_s:.0f} GFLOP/s; "
        f"medians of {repeats}. Bound of a forward or an adjoint: the larger of its bytes, each read and written once, "
        f"at the copy's rate, and its matrix products at the product's rate.\n\n{as_table(rows)}"
    )


def _rows(size: str, device: Device, repeats: int) -> list[SpeedRow]:
    case = make_phantom(seed=0, size=size)
    operator, row = pencil_beam_row(size, case, device, repeats)
    rows = [row, *sparse_rows(size, operator, device, repeats)]
    del operator  # the next row may need its memory
    if size == "demo":
        rows += pydosert_rows(size, case, device, repeats)
    if size == "clinical":
        rows.append(setup_row(size, case, device))
    return [*rows, judging_row(size, case, device)]
