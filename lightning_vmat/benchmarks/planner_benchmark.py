"""Plans the same cases with several planners, judges the plans and stores the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lightning_vmat import __version__
from lightning_vmat.api.planners import ConfiguredPlanner, planner
from lightning_vmat.benchmarks.benchmark_file import BenchmarkFile
from lightning_vmat.benchmarks.comparison import key_doses, measure
from lightning_vmat.benchmarks.dose_speed import check_device
from lightning_vmat.cases.case_files import PLAN_FILE
from lightning_vmat.cases.patient import open_case
from lightning_vmat.cases.plan_files import plan_metadata, write_plan
from lightning_vmat.data.cohort import read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.body_dose import BodyDose
from lightning_vmat.planning.evaluation import evaluate_dose, evaluate_plan
from lightning_vmat.progress import track


def compare_planners(
    cohort: Path,
    names: Sequence[str],
    json: Path,
    *,
    voxels: int,
    cases: int | None,
    split: str,
    jaw_margin_mm: float | None,
    plans: Path | None,
    device: str = "cpu",
) -> BenchmarkFile:
    """Plan each case of a split with each planner; figures of a stopped run are kept.

    Args:
        cohort: folder, packed cohort, or name of a shipped one.
        names: planners, with a run after `=` if needed: `generator=runs/distillation`.
        json: file for the figures.
        voxels: size of the voxel sample on which plans are optimised.
        cases: number of cases; all if None.
        split: split of the cases.
        jaw_margin_mm: see `with_jaws`.
        plans: folder for the deliverable plans; None to discard them.
        device: device on which the cases are planned and judged.

    Raises:
        ValueError: a device that is not there, an unknown planner, a missing run, or an empty cohort.
    """
    check_device(device)
    members = {}
    for spec in names:
        name, _, run = spec.strip().partition("=")
        members[name] = planner(name, run=run or None, jaw_margin_mm=jaw_margin_mm, voxels=voxels)
    folders = read_cohort(unpacked(cohort)).folders(split)[:cases]
    settings = {
        "cohort": cohort,
        "split": split,
        "voxels": voxels,
        "planners": list(names),
        "jaw_margin_mm": jaw_margin_mm,
        "package_version": __version__,
        **({} if device == "cpu" else {"device": device, "hardware": torch.cuda.get_device_name(device)}),
    }
    figures = BenchmarkFile.open(json, settings)
    for folder in track(folders, "cases"):
        case, clinical_dose_gy, *_ = open_case(folder)
        if clinical_dose_gy is not None:
            structures, _ = evaluate_dose(case, clinical_dose_gy.flatten()[case.body_index])
            figures.add_doses("clinical", case.case_id, key_doses(case, structures))
        missing = {name: member for name, member in members.items() if not figures.has(name, case.case_id)}
        if missing:
            _add(figures, case.to(device), missing, plans)
    return figures


def _add(figures: BenchmarkFile, case: Case, members: dict[str, ConfiguredPlanner], plans: Path | None) -> None:
    """Plan one case with several planners, and add the figures."""
    case = next(iter(members.values())).prepared(case)
    body = BodyDose(case)
    for name, member in members.items():
        result = member.plan(case)
        evaluation = evaluate_plan(case, result, body)
        figures.add(name, case.case_id, measure(case, result, evaluation))
        figures.add_doses(name, case.case_id, key_doses(case, evaluation.structures))
        figures.add_course(name, case.case_id, result.trace.points)
        figures.add_stages(name, case.case_id, result.trace.seconds)
        if plans is not None and result.plan is not None:
            write_plan(result.plan, plans / name / case.case_id / PLAN_FILE, plan_metadata(case, name))
        figures.save()
