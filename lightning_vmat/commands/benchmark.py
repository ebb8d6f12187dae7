"""`vmat benchmark`: planners side by side on the held-out cases of a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def benchmark(
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
    """Plan every held-out case with each planner; print each case and medians, and doses beside a clinical plan's.

    Args:
        cohort: folder that `vmat prepare` wrote, a packed cohort, or the name of a shipped one.
        planners: names, with the run of those that need one: `fluence,reference,generator=runs/demo/distillation`.
            A quick planner takes its dose evaluations in all behind its name: `conventional@10,conventional@50`.
            With `fluence` among them, `gap` is how far each objective is above that of fluence alone.
        json: file for the figures: each case, quartiles, and mean doses over cases. While it is made, `.partial`
            beside it keeps what there is: the same command goes on where an earlier one was stopped.
        voxels: size of the voxel sample on which plans are optimised; they are judged on all of the body.
        cases: how many of the cases; all if not given.
        split: which cases; settings are chosen on `train` or `validation`, never on `test`.
        jaw_margin_mm: see `vmat plan`.
        plans: folder that gets `PLANNER/CASE/plan.safetensors` of each deliverable plan, for `vmat check delivery`.
        figure: image for the courses of the planners: objective against dose evaluations and seconds, medians.
        wandb: W&B project that gets the figures as a table too; written beside `json` where there is no key.

    Raises:
        ValueError: an unknown planner, a missing run, or an empty cohort.
    """
    from lightning_vmat import __version__
    from lightning_vmat.api.planners import planner
    from lightning_vmat.benchmarks.benchmark_file import BenchmarkFile
    from lightning_vmat.benchmarks.comparison import key_doses, measure, with_gap
    from lightning_vmat.cases.case_files import PLAN_FILE
    from lightning_vmat.cases.patient import open_case
    from lightning_vmat.cases.plan_files import plan_metadata, write_plan
    from lightning_vmat.data.cohort import read_cohort
    from lightning_vmat.data.packed import unpacked
    from lightning_vmat.export.figures.convergence import courses_figure
    from lightning_vmat.planning.body_dose import BodyDose
    from lightning_vmat.planning.evaluation import evaluate_dose, evaluate_plan
    from lightning_vmat.progress import track

    names = planners.split(",") if isinstance(planners, str) else planners
    members = {}
    for spec in names:
        name, _, run = spec.strip().partition("=")
        members[name] = planner(name, run=run or None, jaw_margin_mm=jaw_margin_mm, voxels=voxels)
    folders = read_cohort(unpacked(cohort)).folders(split)[:cases]
    about = {
        "cohort": cohort,
        "split": split,
        "voxels": voxels,
        "planners": names,
        "jaw_margin_mm": jaw_margin_mm,
    }
    figures = BenchmarkFile.open(json, about | {"package_version": __version__})
    for folder in track(folders, "cases"):
        case, clinical_dose_gy, *_ = open_case(folder)
        if clinical_dose_gy is not None:
            structures, _ = evaluate_dose(case, clinical_dose_gy.flatten()[case.body_index])
            figures.add_doses("clinical", case.case_id, key_doses(case, structures))
        missing = [name for name in members if not figures.has(name, case.case_id)]
        if not missing:
            continue
        case = members[missing[0]].prepared(case)
        body = BodyDose(case)
        for name in missing:
            result = members[name].plan(case)
            evaluation = evaluate_plan(case, result, body)
            figures.add(name, case.case_id, measure(case, result, evaluation))
            figures.add_doses(name, case.case_id, key_doses(case, evaluation.structures))
            figures.add_course(name, case.case_id, result.trace.points)
            if plans is not None and result.plan is not None:
                write_plan(result.plan, plans / name / case.case_id / PLAN_FILE, plan_metadata(case, name))
            figures.save()
    print(f"{len(folders)} cases ({split}); at the end medians, the share of cases that meet all goals, all violations")
    print(figures.finish())
    if figure is not None:
        courses_figure(figures.median_courses()).savefig(figure, dpi=150)
    if wandb:
        from lightning_vmat.benchmarks.benchmark_wandb import log_table

        log_table(wandb, json.parent, figures.settings, with_gap(figures.cases))
