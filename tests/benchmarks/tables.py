"""The tables of this folder's README that no command prints: `python tests/benchmarks/tables.py planners FILE`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {
    "objective": "{:.0f}",
    "over_reference": "{:+.1%}",
    "all_goals_met": "",
    "hi": "{:.3f}",
    "d98": "{:.3f}",
    "paddick": "{:.3f}",
    "edge_metric_per_mm": "{:.3f}",
    "mu_per_gy": "{:.0f}",
    "dose_evaluations": "{:.0f}",
    "seconds": "{:.1f}",
}


def spread(values: Iterable[float], form: str) -> str:
    """Median [quartiles]."""
    low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    if low == high:
        return form.format(median)
    return f"{form.format(median)} [{form.format(low)}, {form.format(high)}]"


def planners(figures: Mapping[str, Any]) -> str:
    """A row for each planner of `vmat benchmark planners`, over the cases that it shares with the reference planner."""
    reference = figures["cases"].get("reference", {})
    lines = []
    for name, cases in figures["cases"].items():
        cells = [name]
        for column, form in COLUMNS.items():
            if column == "all_goals_met":
                cells.append(f"{sum(row[column] for row in cases.values()):.0f} of {len(cases)}")
            elif column == "over_reference":
                shared = {case: row for case, row in cases.items() if case in reference}
                ratios = [row["objective"] / reference[case]["objective"] - 1 for case, row in shared.items()]
                cells.append(spread(ratios, form) if ratios and name != "reference" else "")
            else:
                cells.append(spread((row[column] for row in cases.values()), form))
        lines.append(f"| {' | '.join(cells)} |")
    violations = sum(row["machine_violations"] for cases in figures["cases"].values() for row in cases.values())
    return "\n".join([*lines, "", f"machine violations: {violations:.0f}"])


def delivery(figures: Mapping[str, Any]) -> str:
    """The worst figures of `vmat check delivery --json`, and the delivery time."""
    rows = list(figures["cases"].values())
    changes = (row["objective_change"] for row in rows)
    doses_gy = (row["worst_target_gy"] for row in rows)
    lines = [
        f"| largest change of the objective | 1 % | {max(changes, key=abs):+.2%} |",
        f"| lowest gamma 1 %/1 mm | 99.5 % | {min(row['gamma_1_1'] for row in rows):.2%} |",
        f"| largest difference of D98, D95 or D2 of a target | 0.1 Gy | {max(doses_gy, key=abs):+.3f} Gy |",
        f"| delivery time, median [quartiles] | | {spread((row['delivery_s'] for row in rows), '{:.0f}')} s |",
        f"| plans within all tolerances | all | {sum(row['passed'] for row in rows)} of {len(rows)} |",
    ]
    return "\n".join(lines)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"planners": planners, "delivery": delivery}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    print(TABLES[arguments.table](json.loads(arguments.file.read_text())))
