"""Planners side by side on the same cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation
from lightning_vmat.planning.planner import PlanResult

Row = dict[str, float]
QUARTILES = (0.25, 0.5, 0.75)


def measure(case: Case, result: PlanResult, evaluation: Evaluation) -> Row:
    """The figures by which planners are compared.

    Args:
        case: the case.
        result: a planner's outcome.
        evaluation: of its delivered dose (of its fluence's for an ideal planner).

    Returns:
        `objective` (over the whole body), `goals_met` (fraction), `all_goals_met` (1 or 0), `hi`, `d98` (of the
        prescription, after scaling D50 to it) and `paddick` of the foremost target, `machine_violations`, `mu_per_gy`,
        `edge_metric_per_mm`, `dose_evaluations`, `seconds`.
    """
    target = evaluation.structures[case.target_names[0]]
    planning_s = sum(value for stage, value in result.trace.seconds.items() if stage != "evaluation")
    return {
        "objective": evaluation.objective,
        "goals_met": sum(goal.met for goal in evaluation.goals) / len(evaluation.goals),
        "all_goals_met": float(all(goal.met for goal in evaluation.goals)),
        "hi": target["hi"],
        "d98": target["d98_gy"] / target["d50_gy"],
        "paddick": target["paddick"],
        "machine_violations": float(sum(evaluation.violations.values())),
        "mu_per_gy": evaluation.complexity.get("mu_per_gy", float("nan")),
        "edge_metric_per_mm": evaluation.complexity.get("edge_metric_per_mm", float("nan")),
        "dose_evaluations": float(result.trace.dose_evaluations),
        "seconds": planning_s,
    }


def quartiles(rows: Iterable[Row]) -> dict[str, list[float]]:
    """First quartile, median and third quartile of each figure."""
    rows = list(rows)
    return {name: np.quantile([row[name] for row in rows], QUARTILES).round(6).tolist() for name in rows[0]}


def key_doses(case: Case, structures: Mapping[str, Mapping[str, float]]) -> Row:
    """D95 of each target, mean and maximum of every other structure, Gy: what a plan is compared by with another.

    Args:
        case: the case.
        structures: dose summary by structure, of any dose.
    """
    doses = {}
    for name, figures in structures.items():
        if name in case.target_names:
            doses[f"{name} D95"] = figures["d95_gy"]
        else:
            doses |= {f"{name} mean": figures["mean_gy"], f"{name} max": figures["max_gy"]}
    return doses


def means(rows: Iterable[Row]) -> Row:
    """Mean of each figure over the rows that have it, in the order of names."""
    rows = list(rows)
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def dose_table(averages: Mapping[str, Row]) -> str:
    """Mean doses as Markdown: a row a figure, a column a planner."""
    names = sorted({name for row in averages.values() for name in row})
    lines = ["| Gy | " + " | ".join(averages) + " |", "|---" * (len(averages) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{row[name]:.1f}" for row in averages.values()) + " |" for name in names]
    return "\n".join(lines)


def as_table(summary: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Medians as Markdown: a row a planner, a column a figure."""
    columns = list(next(iter(summary.values())))
    lines = ["| planner | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for planner, figures in summary.items():
        lines.append(f"| {planner} | " + " | ".join(f"{figures[name][1]:.3g}" for name in columns) + " |")
    return "\n".join(lines)
