"""`vmat bench dose`: how fast the dose operators are, beside what else there is, on this machine."""

from __future__ import annotations

from pathlib import Path

SIZES = ["demo", "base", "clinical"]


def dose(
    *,
    device: str = "cpu",
    json: Path | None = None,
    sizes: list[str] = SIZES,
    repeats: int = 5,
    check: Path | None = None,
) -> None:
    """Time the dose operators beside sparse matrices and pydosert; or, with `--check`, print how accurate dose is.

    Args:
        device: `cpu`, or `cuda` for the Triton kernels.
        json: file for the figures.
        sizes: of the phantom whose operator is timed: demo, base, clinical.
        repeats: calls of which the median is taken.
        check: folder of reference doses; print every accuracy figure with its bounds instead of times.

    Raises:
        ValueError: an unknown size, a device that is not there, or fewer than one repeat; a figure out of its bounds.
    """
    if check is not None:
        from lightning_vmat.commands.check_dose import check_dose_command

        check_dose_command(check, json)
        return
    import json as text
    from dataclasses import asdict

    import torch

    from lightning_vmat.commands.dose_judging import judging_row, setup_row
    from lightning_vmat.commands.dose_rivals import pydosert_rows, sparse_rows
    from lightning_vmat.commands.dose_speed import Device, as_table, pencil_beam_row
    from lightning_vmat.data.atomic import atomic_file
    from lightning_vmat.data.phantom import make_phantom
    from lightning_vmat.data.sizes import get_size

    for size in sizes:
        get_size(size)
    if repeats < 1:
        raise ValueError(f"{repeats} repeats: expected at least 1")
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueError(f"device {device}: expected cpu, or cuda where there is one")
    about = Device.measure(device, repeats)
    rows = []
    for size in sizes:
        case = make_phantom(seed=0, size=size)
        operator, row = pencil_beam_row(size, case, about, repeats)
        rows += [row, *sparse_rows(size, operator, about, repeats)]
        del operator  # the next row may need its memory
        if size == "demo":
            rows += pydosert_rows(size, case, about, repeats)
        if size == "clinical":
            rows.append(setup_row(size, case, about))
        rows.append(judging_row(size, case, about))
    print(
        f"{about.hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}: "
        f"copy {about.copy_gb_s:.1f} GB/s, single precision product {about.matmul_gflop_s:.0f} GFLOP/s; "
        f"medians of {repeats}. Bound of a forward or an adjoint: the larger of its bytes, each read and written once, "
        "at the copy's rate, and its matrix products at the product's rate.\n"
    )
    print(as_table(rows))
    if json is not None:
        figures = {"device": asdict(about), "rows": [asdict(row) for row in rows]}
        with atomic_file(json) as draft:
            draft.write_text(text.dumps(figures, indent=1))
