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
        `objective` (over the whole body), `goals_met` (fraction), `hi`, `d98` (of the prescription, after scaling D50
        to it) and `paddick` of the foremost target, `machine_violations`, `mu`, `edge_metric_per_mm`,
        `dose_evaluations`, `seconds`.
    """
    target = evaluation.structures[case.target_names[0]]
    planning_s = sum(value for stage, value in result.trace.seconds.items() if stage != "evaluation")
    return {
        "objective": evaluation.objective,
        "goals_met": sum(goal.met for goal in evaluation.goals) / len(evaluation.goals),
        "hi": target["hi"],
        "d98": target["d98_gy"] / target["d50_gy"],
        "paddick": target["paddick"],
        "machine_violations": float(sum(evaluation.violations.values())),
        "mu": evaluation.complexity.get("mu", float("nan")),
        "edge_metric_per_mm": evaluation.complexity.get("edge_metric_per_mm", float("nan")),
        "dose_evaluations": float(result.trace.dose_evaluations),
        "seconds": planning_s,
    }


def quartiles(rows: Iterable[Row]) -> dict[str, list[float]]:
    """First quartile, median and third quartile of each figure."""
    rows = list(rows)
    return {name: np.quantile([row[name] for row in rows], QUARTILES).round(6).tolist() for name in rows[0]}


def as_table(summary: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Medians as Markdown: a row a planner, a column a figure."""
    columns = list(next(iter(summary.values())))
    lines = ["| planner | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for planner, figures in summary.items():
        lines.append(f"| {planner} | " + " | ".join(f"{figures[name][1]:.3g}" for name in columns) + " |")
    return "\n".join(lines)
