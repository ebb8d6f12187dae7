"""Writes the report of a plan."""

from __future__ import annotations

from pathlib import Path

from lightning_vmat.export import report
from lightning_vmat.export.content import ReportContent
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation
from lightning_vmat.planning.planner import PlanResult


def write_report(path: str | Path, case: Case, result: PlanResult, evaluation: Evaluation) -> None:
    """Write the report that `vmat plan` writes: one HTML file that needs no network, whole or not at all.

    >>> import lightning_vmat as vmat
    >>> case = vmat.phantom(0, size="tiny")
    >>> result = vmat.planner("conventional", voxels=300).plan(case)
    >>> judged = vmat.evaluate_plan(case, result)
    >>> vmat.write_report("plan.html", case, result, judged)

    Args:
        path: path of the HTML file.
        case: the case.
        result: result of the planner; its jaws and wishes are reported.
        evaluation: evaluation of the plan, from `evaluate_plan`.

    Raises:
        ValueError: a plan of another case.
        OSError: the file cannot be written.
    """
    report.write_report(Path(path), ReportContent.of(case, result, evaluation))
