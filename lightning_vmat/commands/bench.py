"""`vmat bench`: how fast the dose operators and the fluence optimizers are, beside what else there is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SIZES = ["demo", "base", "clinical"]


def dose(
    *,
    device: str = "cpu",
    json: Path | None = None,
    sizes: list[str] = SIZES,
    repeats: int = 5,
) -> None:
    """Time the dose operators beside sparse matrices and pydosert.

    Args:
        device: `cpu`, or `cuda` for the Triton kernels.
        json: file for the figures.
        sizes: of the phantom whose operator is timed: demo, base, clinical.
        repeats: calls of which the median is taken.

    Raises:
        ValueError: an unknown size, a device that is not there, or fewer than one repeat.
    """
    import json as text
    from dataclasses import asdict

    import torch

    from lightning_vmat.benchmarks.dose_baselines import pydosert_rows, sparse_rows
    from lightning_vmat.benchmarks.dose_judging import judging_row, setup_row
    from lightning_vmat.benchmarks.dose_speed import Device, as_table, pencil_beam_row
    from lightning_vmat.cases.phantom.phantom import make_phantom
    from lightning_vmat.cases.sizes import get_size
    from lightning_vmat.files.atomic import atomic_file

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


def optimizers(
    *,
    cohort: Path,
    json: Path | None = None,
    run: Path | None = None,
    cases: int | None = None,
    split: Literal["train", "validation", "test"] = "test",
    changed_settings: bool = False,
    machine: str | None = None,
    evaluations: int = 10,
    most: int = 100,
    voxels: int = 15000,
) -> None:
    """Race hand-made fluence optimizers against the learned one, with its weights as they are.

    From the generator's maps and from the open field: the objective after some dose evaluations, and how many of
    them the others need for the same.

    Args:
        cohort: folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one. Cases without any of
            the structures that the generator knows start from the open field alone.
        json: file for the figures. While it is made, `.partial` beside it keeps what there is: the same command goes
            on where an earlier one was stopped.
        run: run directory or weights of a learned optimizer; the shipped ones if not given.
        cases: how many of the cases; all if not given.
        split: which cases.
        changed_settings: race under changed prescriptions, weights, arcs and leaves too (prostate phantoms).
        machine: YAML of another machine to race on beside.
        evaluations: dose evaluations of the learned optimizer.
        most: dose evaluations after which the others give up.
        voxels: size of the voxel sample.

    Raises:
        ValueError: an empty cohort, no such run, or fewer evaluations than one.
    """
    import json as text

    from lightning_vmat.benchmarks import optimizer_race as racing
    from lightning_vmat.benchmarks.partial_file import PartialFile
    from lightning_vmat.cases.case_files import read_case
    from lightning_vmat.data.cohort import read_cohort
    from lightning_vmat.data.packed import unpacked
    from lightning_vmat.progress import track
    from lightning_vmat.recipes.planning import recipe_planner
    from lightning_vmat.recipes.runs import condition_structures
    from lightning_vmat.recipes.trained import learned_optimizer
    from lightning_vmat.recipes.weights import SHIPPED

    if not 1 <= evaluations <= most:
        raise ValueError(f"evaluations {evaluations}, most {most}: expected at least 1, and no fewer at most")
    run = run or Path(SHIPPED, racing.LEARNED)
    optimizer, start, known = learned_optimizer(run), recipe_planner(run, voxels).start, condition_structures(run)
    settings = racing.settings(machine)
    always = ("as trained", "another machine")
    chosen = {name: setting for name, setting in settings.items() if changed_settings or name in always}
    about = {"cohort": str(cohort), "split": split, "evaluations": evaluations, "most": most, "voxels": voxels}
    compared = about | {"run": run, "machine": machine, "cases": cases}
    partial = PartialFile(json, compared) if json is not None else None
    kept = partial.read(["rows"]) if partial else None
    rows = kept[0] if kept else []
    done = {(row["case"], row["setting"]) for row in rows}
    for folder in track(read_cohort(unpacked(cohort)).folders(split)[:cases], "cases"):
        given = read_case(folder)
        for name, setting in chosen.items():
            if (given.case_id, name) in done:
                continue
            case = setting.change(given)
            problem = setting.problem(case, voxels)
            fitting = start if any(structure in case.structures for structure in known) else None
            found = racing.race(case, problem, fitting, optimizer, evaluations, most)
            rows += [{"setting": name, "case": given.case_id, **row} for row in found]
            if partial:
                partial.write({"rows": rows})
    summary = racing.summary(rows)
    if partial:
        partial.finish(text.dumps({**about, "summary": summary, "rows": rows}, indent=1))
    print(racing.as_table(summary))
