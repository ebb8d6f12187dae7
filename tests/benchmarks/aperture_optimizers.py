"""Aperture optimization with and without its learned correction, from the same starts, after equal dose evaluations.

`python tests/benchmarks/aperture_optimizers.py --cohort runs/held_out --run prostate_wished/learned --json F`. The
starts are the sequenced map of the run's generator and the sequenced open field; the voxels are those of a plan. Takes
half a minute a case on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.planning.aperture_unroll import begin_apertures
from lightning_vmat.planning.problem import VOXELS, CaseProblems
from lightning_vmat.planning.quasi_newton_apertures import StepCorrection
from lightning_vmat.planning.staged import Start, open_start
from lightning_vmat.recipes.trained import load_start, step_correction

EVALUATIONS = (3, 5, 10, 20, 45)  # 45: three times the steps of the training
JAW_MARGIN_MM = 8.0


@torch.no_grad()
def course(problems: CaseProblems, start: Start, correction: StepCorrection | None) -> dict[str, list[float]]:
    """Objective on the voxels of a plan, and seconds, after each number of dose evaluations."""
    begin = time.perf_counter()
    run = begin_apertures(problems.case.beam_setup, problems.whole, start(problems), correction)
    objectives, seconds = [], []
    for evaluations in EVALUATIONS:
        while run.halves < 2 * evaluations and run.may_go_on:
            run.iterate()
        objectives.append(run.value)
        seconds.append(time.perf_counter() - begin)
    return {"objective": objectives, "seconds": seconds}


def compared(folder: Path, run: Path, correction: StepCorrection) -> dict[str, object]:
    """The courses of one case."""
    problems = CaseProblems(with_jaws(read_case(folder), JAW_MARGIN_MM))
    starts: dict[str, Start] = {"generator": load_start(run), "open field": open_start}
    corrections: dict[str, StepCorrection | None] = {"model": None, "corrected": correction}
    return {
        "case": folder.name,
        **{
            name: {label: course(problems, start, one) for label, one in corrections.items()}
            for name, start in starts.items()
        },
    }


def summary(rows: list[dict[str, dict[str, dict[str, list[float]]]]], start: str) -> str:
    """Medians of the ratio of objectives with and without the correction, and in how many cases it is below 1."""
    parts = []
    for number, evaluations in enumerate(EVALUATIONS):
        ratios = [
            row[start]["corrected"]["objective"][number] / row[start]["model"]["objective"][number] for row in rows
        ]
        better = sum(ratio < 1 for ratio in ratios)
        parts.append(f"{evaluations}: {statistics.median(ratios) - 1:+.1%} ({better} of {len(ratios)})")
    slower = statistics.median(
        row[start]["corrected"]["seconds"][-1] / row[start]["model"]["seconds"][-1] for row in rows
    )
    return f"{start}: {', '.join(parts)}; {slower:.2f} times as long"


def main() -> None:
    """Write the courses of a cohort's test cases, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, help="first cases only")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    correction = step_correction(options.run)
    if correction is None:
        parser.error(f"run {options.run}: has no correction of aperture optimization")
    rows: list[dict[str, object]] = []
    settings = {"cohort": options.cohort.name, "run": options.run.name, "voxels": VOXELS, "evaluations": EVALUATIONS}
    for folder in read_cohort(options.cohort).folders(options.split)[: options.count]:
        rows.append(compared(folder, options.run, correction))
        options.json.write_text(json.dumps({"settings": settings, "cases": rows}, indent=1) + "\n")
    for start in ("generator", "open field"):
        print(summary(rows, start))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
