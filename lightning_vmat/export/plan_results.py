"""Writes the results of `vmat plan`: plan, dose, figures, report, and DICOM objects for DICOM patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from lightning_vmat.cases.case_files import DOSE_FILE, PLAN_FILE
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.cases.plan_files import plan_metadata, write_dose, write_plan
from lightning_vmat.export import compared as comparison
from lightning_vmat.export.content import ComparedPlan, ReportContent
from lightning_vmat.export.patient_folder import write_plan_and_dose
from lightning_vmat.export.report import write_report
from lightning_vmat.planning.body_dose import BodyDose
from lightning_vmat.planning.evaluation import as_json, dose_as_json, evaluate_plan
from lightning_vmat.planning.planner import PlanResult

REPORT_FILE = "report.html"


def write_results(
    folder: Path,
    opened: OpenedPatient,
    result: PlanResult,
    compared: ComparedPlan | None,
    dose_bits: Literal[16, 32],
    body: BodyDose | None = None,
) -> dict[str, Any]:
    """Evaluate the result of a planner, and write all files.

    Args:
        folder: folder to write to.
        opened: the patient.
        result: result of the planner.
        compared: plan to show beside it; None for none.
        dose_bits: bits of a pixel of the RTDOSE.
        body: dose of the case on the whole body, if it is built already.

    Returns:
        The content of `metrics.json`.
    """
    case = opened.case
    with result.trace.stage("evaluation"):
        evaluation = evaluate_plan(case, result, body)
    if result.plan is not None:
        write_plan(result.plan, folder / PLAN_FILE, plan_metadata(case, result.planner))
        if opened.link is not None:
            write_plan_and_dose(folder, case, result.plan, evaluation.dose_gy, opened.link, dose_bits)
    write_dose(evaluation.dose_gy, case.grid, folder / DOSE_FILE)
    measured = as_json(case, result, evaluation)
    if opened.rois is not None:
        measured["rois"] = opened.rois.as_json()
    if opened.clinical_dose_gy is not None:
        measured["clinical"] = dose_as_json(case, opened.clinical_dose_gy.flatten()[case.body_index])
    if compared is not None:
        measured["compared"] = comparison.as_json(compared)
    (folder / comparison.METRICS_FILE).write_text(json.dumps(measured, indent=1))
    write_report(folder / REPORT_FILE, ReportContent.of(case, result, evaluation, compared, opened.rois))
    return measured
