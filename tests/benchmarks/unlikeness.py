"""How unlike the cases of a network's training the cases of some cohorts are.

python tests/benchmarks/unlikeness.py --run prostate_wished/regression --json tests/benchmarks/unlikeness.json \
    --cohort runs/held_out --cohort runs/hard --cohort runs/kbp
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from lightning_vmat.api.planners import JAW_MARGIN_MM
from lightning_vmat.cases.case_files import read_case
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.likeness import read_seen_cases
from lightning_vmat.recipes.runs import channel_settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, action="append", required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings, seen = channel_settings(options.run), read_seen_cases(options.run)
    if seen is None:
        raise SystemExit(f"run {options.run}: no record of the cases of its training")
    rows = {}
    for root in options.cohort:
        values = {}
        for folder in read_cohort(root).folders("test"):
            case = with_jaws(read_case(folder), JAW_MARGIN_MM)
            values[folder.name] = round(seen.unlikeness(condition_channels(CaseProblems(case), settings)), 3)
        rows[root.name] = values
        found = sorted(values.values())
        print(
            f"| {root.name} | {len(found)} | {statistics.median(found):.2f} | {found[0]:.2f} to {found[-1]:.2f} "
            f"| {sum(value > 1 for value in found)} |",
            flush=True,
        )
    options.json.write_text(json.dumps({"run": str(options.run), "unlikeness": rows}, indent=1))


if __name__ == "__main__":
    main()
