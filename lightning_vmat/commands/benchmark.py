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
    voxels: int = 30_000,
    cases: int | None = None,
    split: Literal["train", "validation", "test"] = "test",
    jaw_margin_mm: float | None = 8.0,
    plans: Path | None = None,
    figure: Path | None = None,
    wandb: str | None = None,
) -> None:
    """Plan every held-out case with each planner; print each case, medians, and doses beside a clinical plan's.

    Args:
        cohort: folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one.
        planners: names, with the run of those that need one: `fluence,reference,generator=runs/demo/distillation`.
            A quick planner takes its dose evaluations in all behind its name: `conventional@10,conventional@50`.
            With `fluence` among them, `gap` is how far each objective is above that of fluence alone.
        json: file for the figures: each case, quartiles, and mean doses over cases. Until it is complete, `.partial`
            beside it keeps the figures so far; the same command then continues.
        voxels: size of the voxel sample on which plans are optimised; they are judged on all of the body.
        cases: number of cases; all if not given.
        split: which cases; settings are chosen on `train` or `validation`, never on `test`.
        jaw_margin_mm: see `vmat plan`.
        plans: folder that gets `PLANNER/CASE/plan.safetensors` of each deliverable plan, for `vmat check delivery`.
        figure: image of the planners' medians: objective against dose evaluations and seconds.
        wandb: W&B project that gets the figures as a table too; written beside `json` where there is no key.

    Raises:
        ValueError: an unknown planner, a missing run, or an empty cohort.
    """
    from lightning_vmat.benchmarks.planner_benchmark import compare_planners

    names = planners.split(",") if isinstance(planners, str) else planners
    figures = compare_planners(
        cohort, names, json, voxels=voxels, cases=cases, split=split, jaw_margin_mm=jaw_margin_mm, plans=plans
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

    From the generator's maps and from the open field: the objective after some dose evaluations, and how many of
    them the others need to reach the same.

    Args:
        cohort: folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one. Cases without any of
            the structures that the generator knows start from the open field alone.
        json: file for the figures. Until it is complete, `.partial` beside it keeps the figures so far; the same
            command then continues.
        run: run directory or weights of a learned optimizer; the shipped ones if not given.
        cases: number of cases; all if not given.
        split: which cases.
        changed_settings: also change prescriptions, weights, arcs and leaves (prostate phantoms).
        machine: YAML of another machine to compare on as well.
        evaluations: dose evaluations of the learned optimizer.
        max_evaluations: dose evaluations after which the others stop.
        voxels: size of the voxel sample.

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
    """Time the dose operators, compared with sparse matrices and pydosert.

    Args:
        device: `cpu`, or `cuda` for the Triton kernels.
        json: file for the figures.
        sizes: sizes of the phantom whose operator is timed: demo, base, clinical.
        repeats: calls of which the median is taken.

    Raises:
        ValueError: an unknown size, a device that is not there, or fewer than one repeat.
    """
    from lightning_vmat.benchmarks.dose_benchmark import time_dose

    print(time_dose(device, sizes, repeats, json))
