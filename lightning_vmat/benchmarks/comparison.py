"""Figures and tables that compare planners on the same cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple

import numpy as np

from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation, sequencing_error
from lightning_vmat.planning.planner import PlanResult, TracePoint

Figures = dict[str, float]
QUARTILES = (0.25, 0.5, 0.75)


def measure(case: Case, result: PlanResult, evaluation: Evaluation) -> Figures:
    """The figures by which planners are compared.

    Args:
        case: the case.
        result: result of a planner.
        evaluation: evaluation of its delivered dose (for an ideal planner of the dose of its fluence).

    Returns:
        `objective` (over the whole body), `sample_objective` (on the voxels that the plan was optimised on),
        `goals_met` (fraction), `all_goals_met` (1 or 0), `hi`, `d98` (of the prescription, after scaling D50 to it)
        and `paddick` of the first target, `machine_violations`, `mu_per_gy`, `delivery_s`, `edge_metric_per_mm`,
        `dose_evaluations`, `seconds`, and the figure of `sequencing_error`.
    """
    target = evaluation.structures[case.target_names[0]]
    planning_s = sum(value for stage, value in result.trace.seconds.items() if stage != "evaluation")
    return {
        "objective": evaluation.objective,
        "sample_objective": result.trace.points[-1].objective if result.trace.points else float("nan"),
        "goals_met": sum(goal.met for goal in evaluation.goals) / len(evaluation.goals),
        "all_goals_met": float(all(goal.met for goal in evaluation.goals)),
        "hi": target["hi"],
        "d98": target["d98_gy"] / target["d50_gy"],
        "paddick": target["paddick"],
        "machine_violations": float(sum(evaluation.violations.values())),
        "mu_per_gy": evaluation.complexity.get("mu_per_gy", float("nan")),
        "delivery_s": float("nan") if evaluation.delivery_s is None else evaluation.delivery_s,
        "edge_metric_per_mm": evaluation.complexity.get("edge_metric_per_mm", float("nan")),
        "dose_evaluations": float(result.trace.dose_evaluations),
        "seconds": planning_s,
        **sequencing_error(case, result),
    }


def with_gap(cases: Mapping[str, Mapping[str, Figures]], bound: str = "fluence") -> dict[str, dict[str, Figures]]:
    """The figures with `gap`: objective over the objective of the ideal fluence, minus 1.

    Args:
        cases: figures by planner and case.
        bound: planner whose objective on the same case is the bound; without it no gaps are added.
    """
    bounds = {case: row["objective"] for case, row in cases.get(bound, {}).items()}
    return {
        planner: {
            case: row | ({"gap": row["objective"] / bounds[case] - 1} if case in bounds else {})
            for case, row in rows.items()
        }
        for planner, rows in cases.items()
    }


def quartiles(rows: Iterable[Figures]) -> dict[str, list[float]]:
    """First quartile, median and third quartile of each figure that all rows have."""
    rows = list(rows)
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: np.quantile([row[name] for row in rows], QUARTILES).round(6).tolist() for name in names}


def median_course(courses: Sequence[Sequence[TracePoint]]) -> list[TracePoint]:
    """Medians over cases of seconds and objective at each number of dose evaluations that all cases note."""
    noted = [{(point.stage, point.dose_evaluations): point for point in course} for course in courses]
    shared = [key for key in noted[0] if all(key in points for points in noted)]
    return [TracePoint(*key, *np.median([astuple(points[key])[2:] for points in noted], axis=0)) for key in shared]


def key_doses(case: Case, structures: Mapping[str, Mapping[str, float]]) -> Figures:
    """Doses by which plans are compared, Gy: D95 of each target, mean and maximum of every other structure.

    Args:
        case: the case.
        structures: dose summary by structure.
    """
    doses = {}
    for name, figures in structures.items():
        if name in case.target_names:
            doses[f"{name} D95"] = figures["d95_gy"]
        else:
            doses |= {f"{name} mean": figures["mean_gy"], f"{name} max": figures["max_gy"]}
    return doses


def means(rows: Iterable[Figures]) -> Figures:
    """Mean of each figure over the rows that have it, sorted by name."""
    rows = list(rows)
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def dose_table(averages: Mapping[str, Figures]) -> str:
    """Mean doses as a Markdown table: a row for each figure, a column for each planner."""
    names = sorted({name for row in averages.values() for name in row})
    lines = ["| Gy | " + " | ".join(averages) + " |", "|---" * (len(averages) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[name]:.1f}" for row in averages.values()) + " |" for name in names]
    return "\n".join(lines)


def as_table(cases: Mapping[str, Mapping[str, Figures]]) -> str:
    """Figures as a Markdown table: a row for each case and planner, then a summary row for each planner.

    A summary row contains medians, the mean of `all_goals_met` (share of cases) and the sum of `machine_violations`.
    """
    columns = list(dict.fromkeys(name for rows in cases.values() for row in rows.values() for name in row))
    lines = ["| case | planner | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    names = dict.fromkeys(case for rows in cases.values() for case in rows)
    lines += [
        _line(case, planner, rows[case], columns) for case in names for planner, rows in cases.items() if case in rows
    ]
    for planner, rows in cases.items():
        lines.append(_line(f"all {len(rows)}", planner, _over_cases(list(rows.values())), columns))
    return "\n".join(lines)


def _over_cases(rows: Sequence[Figures]) -> Figures:
    summary = {name: values[1] for name, values in quartiles(rows).items()}
    for name, reduced in (("all_goals_met", np.mean), ("machine_violations", np.sum)):
        if name in summary:
            summary[name] = float(reduced([row[name] for row in rows]))
    return summary


def _line(case: str, planner: str, row: Figures, columns: Iterable[str]) -> str:
    cells = [f"{row[name]:.3g}" if name in row else "" for name in columns]
    return f"| {case} | {planner} | {' | '.join(cells)} |"
