"""Compares the learned optimizer with others over the cases of a cohort; figures of a stopped run are kept."""

from __future__ import annotations

import json as text
from pathlib import Path

from lightning_vmat.benchmarks.optimizer_race import LEARNED, RaceRow, race, settings, summary
from lightning_vmat.benchmarks.partial_file import PartialFile
from lightning_vmat.cases.case_files import read_case
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.progress import track
from lightning_vmat.recipes.planning import recipe_planner
from lightning_vmat.recipes.runs import channel_settings
from lightning_vmat.recipes.trained import learned_optimizer
from lightning_vmat.recipes.weights import default_weights

ALWAYS = ("as trained", "another machine")


def race_optimizers(
    cohort: Path,
    json: Path | None,
    run: Path | None,
    *,
    cases: int | None,
    split: str,
    changed_settings: bool,
    machine: str | None,
    evaluations: int,
    max_evaluations: int,
    voxels: int,
) -> list[RaceRow]:
    """Run the comparison, and return the summary over cases. For the arguments see `vmat benchmark optimizers`.

    Raises:
        ValueError: an empty cohort, no such run, or evaluations out of range.
    """
    if not 1 <= evaluations <= max_evaluations:
        found = f"evaluations {evaluations}, max_evaluations {max_evaluations}"
        raise ValueError(f"{found}: expected 1 <= evaluations <= max_evaluations")
    run = run or default_weights(LEARNED)
    optimizer, start = learned_optimizer(run), recipe_planner(run, voxels).start
    known = channel_settings(run).structures
    chosen = {name: setting for name, setting in settings(machine).items() if changed_settings or name in ALWAYS}
    about = {"cohort": str(cohort), "split": split, "evaluations": evaluations, "max_evaluations": max_evaluations}
    about |= {"voxels": voxels}
    partial = PartialFile(json, about | {"run": run, "machine": machine, "cases": cases}) if json is not None else None
    kept = partial.read(["rows"]) if partial else None
    rows: list[RaceRow] = kept[0] if kept else []
    done = {(row["case"], row["setting"]) for row in rows}
    for folder in track(read_cohort(unpacked(cohort)).folders(split)[:cases], "cases"):
        given = read_case(folder)
        for name, setting in chosen.items():
            if (given.case_id, name) in done:
                continue
            case = setting.change(given)
            problems = setting.problems(case, voxels)
            fitting = start if any(structure in case.structures for structure in known) else None
            raced = race(problems, fitting, optimizer, evaluations, max_evaluations)
            rows += [{"setting": name, "case": given.case_id, **row} for row in raced]
            if partial:
                partial.write({"rows": rows})
    medians = summary(rows)
    if partial:
        partial.finish(text.dumps({**about, "summary": medians, "rows": rows}, indent=1))
    return medians
