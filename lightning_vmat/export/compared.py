"""Finds and evaluates the plan that a report shows beside the new one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightning_vmat.cases.case_files import DOSE_FILE
from lightning_vmat.cases.dicom.files import looks_like_dicom
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.start import planned_case
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.cases.plan_files import read_dose
from lightning_vmat.export.content import ComparedPlan
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.checks import is_number
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.planning.evaluation import evaluate_plan, evaluate_volume
from lightning_vmat.planning.planner import PlanResult, Trace

METRICS_FILE = "metrics.json"


def compared_plan(path: Path | None, opened: OpenedPatient, start: Path | None = None) -> ComparedPlan | None:
    """The plan to compare with: the given one, else the plan to start from, else the clinical dose; None without any.

    Args:
        path: results of `vmat plan`, or an RTPLAN; None if not given.
        opened: the patient.
        start: RTPLAN of the plan to start from.

    Raises:
        ValueError: another kind of file, or a plan that does not fit the case.
    """
    case = opened.case
    if path is not None and path.is_dir():
        return _planned_before(path, case)
    if path is not None:
        if not path.is_file() or not looks_like_dicom(path):
            raise ValueError(f"{path}: expected results of `vmat plan` or an RTPLAN to compare with")
        return _delivered("RTPLAN", *planned_case(path, case, opened.link), path)
    if opened.start is not None and start is not None:
        return _delivered("start", case, opened.start, start)
    if opened.clinical_dose_gy is not None:
        return ComparedPlan("clinical dose", evaluate_volume(case, opened.clinical_dose_gy))
    return None


def as_json(compared: ComparedPlan) -> dict[str, Any]:
    """Figures of the compared plan for `metrics.json`."""
    evaluation = compared.evaluation
    return {
        "name": compared.name,
        "objective": evaluation.objective,
        "machine_violations_by_limit": evaluation.violations,
        "delivery_s": evaluation.delivery_s,
        "structures": evaluation.structures,
        "goals": [asdict(goal) for goal in evaluation.goals],
        "goals_met": sum(goal.met for goal in evaluation.goals),
        "complexity": evaluation.complexity,
    }


def _delivered(name: str, case: Case, plan: Plan, path: Path) -> ComparedPlan:
    """A plan, judged by its delivered dose and by the leaves of its RTPLAN."""
    measured = evaluate_plan(case, PlanResult(plan.fluence_mu(case.beam_setup), plan, Trace()))
    leaves, setup = read_rtplan(path).on_leaves(case.machine)
    violations = machine_violations(leaves, setup, gantry_may_slow=True)
    delivery_s = float(delivery_seconds(leaves, setup).sum())
    return ComparedPlan(name, replace(measured, violations=violations, delivery_s=delivery_s))


def _planned_before(folder: Path, case: Case) -> ComparedPlan:
    """Results of `vmat plan`: their dose, judged like the new one, and their stored violations and complexity."""
    path = folder / METRICS_FILE
    try:
        stored = json.loads(path.read_text())
        complexity, violations = stored["complexity"], stored["machine_violations_by_limit"]
        delivery_s = stored.get("delivery_s")
        numbers = (*complexity.values(), *violations.values(), *([] if delivery_s is None else [delivery_s]))
        if not all(is_number(value) for value in numbers):
            raise ValueError("complexity, violations or delivery time: expected numbers")
        name, planned = str(stored["planner"]), str(stored["case"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the metrics that `vmat plan` writes ({type(error).__name__})") from error
    if planned != case.case_id:
        raise ValueError(f"{path}: plan of case {planned}, expected one of case {case.case_id}")
    dose_alone = evaluate_volume(case, read_dose(folder / DOSE_FILE, case.grid))
    return ComparedPlan(name, replace(dose_alone, violations=violations, complexity=complexity, delivery_s=delivery_s))
