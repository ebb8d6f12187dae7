"""`vmat benchmark`: comparisons of planners, of fluence optimizers, and of dose operators."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

SIZES = ["demo", "base", "clinical"]


def planners(
    *,
    cohort: Path,
    planners: list[str] | str,
    json: Path,
    voxels: int = 40_000,
    cases: int | None = None,
    split: Literal["train", "validation", "test"] = "test",
    jaw_margin_mm: float | None = 8.0,
    plans: Path | None = None,
    figure: Path | None = None,
    wandb: str | None = None,
    device: str = "cpu",
) -> None:
    """Compare planners: plan every held-out case with each, and print figures, medians and mean doses.

    Args:
        cohort: Folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one.
        planners: Names, with a run after `=` if needed: `fluence,reference,generator=runs/demo/distillation`. `@` sets
            the dose evaluations of a quick planner: `conventional@10,conventional@50`. If `fluence` is among them,
            `gap` is the excess of each objective over that of the ideal fluence, as a fraction.
        json: File for the figures: each case, quartiles, and mean doses over cases. Until it is complete, `.partial`
            beside it holds the figures so far; the same command then continues.
        voxels: Size of the voxel sample on which plans are optimised. All plans are judged on the whole body.
        cases: Number of cases. Default: all.
        split: Cases to plan. Choose settings on `train` or `validation`, never on `test`.
        jaw_margin_mm: Least distance, in mm, between jaws and targets; see `vmat plan`.
        plans: Folder for the deliverable plans, `PLANNER/CASE/plan.safetensors`, as `vmat check delivery` reads them.
        figure: Image file of the planners' medians: objective against dose evaluations and seconds.
        wandb: W&B project for a table of the figures. Without a key it is written beside `json`.
        device: `cpu`, or `cuda` to plan and judge on a GPU.

    Raises:
        ValueError: a device that is not there, an unknown planner, a missing run, or an empty cohort.
    """
    from lightning_vmat.benchmarks.planner_benchmark import compare_planners

    names = planners.split(",") if isinstance(planners, str) else planners
    figures = compare_planners(
        cohort,
        names,
        json,
        voxels=voxels,
        cases=cases,
        split=split,
        jaw_margin_mm=jaw_margin_mm,
        plans=plans,
        device=device,
    )
    print(f"{figures.case_count} cases ({split}); last rows: medians, share of cases that meet all goals, violations")
    print(figures.finish())
    if figure is not None:
        from lightning_vmat.export.figures.convergence import courses_figure

        courses_figure(figures.median_courses()).savefig(figure, dpi=150)
    if wandb:
        from lightning_vmat.benchmarks.benchmark_wandb import log_table

        log_table(wandb, json.parent, figures.settings, figures.with_gaps)


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
    max_evaluations: int = 100,
    voxels: int = 15000,
) -> None:
    """Compare conventional fluence optimizers with the learned one, whose weights stay as they are.

    From the generator's maps and from the open field: the objective after some dose evaluations of the learned
    optimizer, and the number that the others need to reach the same objective.

    Args:
        cohort: Folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one. Cases without any
            structure that the generator knows start from the open field only.
        json: File for the figures. Until it is complete, `.partial` beside it holds the figures so far; the same
            command then continues.
        run: Run directory or weights of a learned optimizer. Default: the weights in the package.
        cases: Number of cases. Default: all.
        split: Cases to compare on.
        changed_settings: Repeat the comparison with changed prescriptions, weights, arcs and leaves (for prostate
            phantoms).
        machine: YAML file of another machine to compare on as well.
        evaluations: Dose evaluations of the learned optimizer.
        max_evaluations: Dose evaluations after which the others stop.
        voxels: Size of the voxel sample.

    Raises:
        ValueError: an empty cohort, no such run, or evaluations out of range.
    """
    from lightning_vmat.benchmarks.optimizer_benchmark import race_optimizers
    from lightning_vmat.benchmarks.optimizer_race import as_table

    medians = race_optimizers(
        cohort,
        json,
        run,
        cases=cases,
        split=split,
        changed_settings=changed_settings,
        machine=machine,
        evaluations=evaluations,
        max_evaluations=max_evaluations,
        voxels=voxels,
    )
    print(as_table(medians))


def dose(
    *,
    device: str = "cpu",
    json: Path | None = None,
    sizes: list[str] = SIZES,
    repeats: int = 5,
) -> None:
    """Measure the speed of the dose operators, compared with sparse matrices and pydosert.

    Args:
        device: `cpu`, or `cuda` for the Triton kernels.
        json: File for the figures.
        sizes: Sizes of the phantom whose operator is timed: demo, base, clinical.
        repeats: Number of calls of which the median is taken.

    Raises:
        ValueError: an unknown size, a device that is not there, or fewer than one repeat.
    """
    from lightning_vmat.benchmarks.dose_benchmark import time_dose

    print(time_dose(device, sizes, repeats, json))
