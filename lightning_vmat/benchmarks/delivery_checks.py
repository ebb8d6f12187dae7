"""Compares plans of any form with the delivered dose of their RTPLANs: `vmat check delivery`."""

from __future__ import annotations

import json as text
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.benchmarks.partial_file import PartialFile
from lightning_vmat.benchmarks.tolerance import ToleranceExceeded
from lightning_vmat.cases.case_files import CASE_FILE, DOSE_FILE, PLAN_FILE, arcs_of, check_beams, read_settings
from lightning_vmat.cases.dicom.files import looks_like_dicom, naming
from lightning_vmat.cases.dicom.rtdose import dose_of_plan, read_rtdose
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.start import start_plan
from lightning_vmat.cases.patient import OpenedPatient, open_case
from lightning_vmat.cases.plan_files import read_dose, read_plan
from lightning_vmat.data.cohort import SPLIT_FILE, SPLITS, read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.export.delivery_check import DeliveryCheck, check_rtplan
from lightning_vmat.export.patient_folder import RTPLAN_FILE, phantom_link, plan_dose
from lightning_vmat.export.rtplan import write_rtplan
from lightning_vmat.files.atomic import atomic_file, check_file
from lightning_vmat.metrics.check import as_table
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.checks import check_kinds
from lightning_vmat.plan.jaws import within_jaws
from lightning_vmat.plan.machine import machine_name
from lightning_vmat.progress import track

COLUMNS = {
    "objective": "{objective:.1f}",
    "delivered": "{delivered_objective:.1f}",
    "change": "{objective_change:+.2%}",
    "gamma 1 %/1 mm": "{gamma_1_1:.2%}",
    "largest target difference Gy": "{worst_target_gy:+.3f}",
    "MU": "{mu:.0f}",
    "delivery s": "{delivery_s:.0f}",
    "fastest leaf mm/s": "{max_leaf_mm_per_s:.1f}",
}
VERDICT = {True: "pass", False: "FAIL"}


def is_one_plan(path: Path) -> bool:
    """Whether the path is a single plan, or the results of one; otherwise it should contain many plans."""
    return path.is_file() or (path / PLAN_FILE).is_file() or (path / RTPLAN_FILE).is_file()


def own_case(plan: Path) -> Path:
    """The case folder that contains a plan.

    Raises:
        ValueError: the plan is not in a case folder.
    """
    folder = plan if plan.is_dir() else plan.parent
    if not (folder / CASE_FILE).is_file():
        raise ValueError(f"{plan}: no {CASE_FILE} beside it, expected --case with the plan's case")
    return folder


def machine_of(plan: Path) -> str | None:
    """The machine that a plan was made for; None for an RTPLAN, and for older plans, which do not name it.

    Raises:
        ValueError: an unreadable plan, or a machine that is not there.
    """
    plan_file = plan / PLAN_FILE if plan.is_dir() else plan
    if not plan_file.is_file() or looks_like_dicom(plan_file):
        return None
    machine = read_plan(plan_file)[1].get("machine")
    with naming(plan_file):
        return None if machine is None else machine_name(machine)


def check_one(plan: Path, opened: OpenedPatient, step_deg: float, json: Path | None) -> None:
    """Check one plan, print all figures and write them.

    Raises:
        ValueError: a plan that does not fit the case, or a folder in place of the file.
        ToleranceExceeded: a figure is out of tolerance.
    """
    check_file(json)
    found = delivery_check(plan, opened, step_deg)
    print(as_table(found.checks()))
    print(f"objective {found.objective:.4g} planned, {found.delivered_objective:.4g} delivered; "
          f"planned dose: {found.planned_dose}")  # fmt: skip
    for number, arc in enumerate(found.arcs, start=1):
        held = ", ".join(f"{name.replace('_', ' ')} {seconds:.1f} s" for name, seconds in arc.held_by_s.items())
        print(
            f"arc {number}: {arc.seconds:.1f} s (at the limit: {held}), {arc.mu:.1f} MU, up to "
            f"{arc.max_leaf_mm_per_s:.1f} mm/s and {60 * arc.max_dose_rate_mu_per_s:.0f} MU/min"
        )
    print(f"delivery: {found.seconds:.1f} s, {found.mu:.1f} MU")
    if json is not None:
        with atomic_file(json) as draft:
            draft.write_text(_content(_settings(plan, step_deg), {found.case: found.as_json()}))
    _raise_if_failed({found.case: found.as_json()})


def check_many(
    root: Path, case_root: Path | None, split: str | None, cases: int | None, step_deg: float, json: Path | None
) -> None:
    """Check many plans, print a Markdown row for each, and write all figures.

    Raises:
        ValueError: no plans, or a plan that does not fit its case.
        ToleranceExceeded: a figure is out of tolerance.
    """
    pairs = plans_and_cases(root, case_root, split)[:cases]
    settings = _settings(root, step_deg) | {"case": str(case_root), "split": split, "cases": cases}
    partial = PartialFile(json, settings) if json is not None else None
    kept = partial.read(["cases"]) if partial else None
    rows: dict[str, Any] = kept[0] if kept else {}
    for plan, folder in track(pairs, "plans"):
        if plan.name not in rows:
            rows[plan.name] = delivery_check(plan, open_case(folder, machine=machine_of(plan)), step_deg).as_json()
            if partial:
                partial.write({"cases": rows})
    if partial:
        partial.finish(_content(settings, rows))
    print(markdown(rows))
    _raise_if_failed(rows)


def plans_and_cases(root: Path, case_root: Path | None, split: str | None) -> list[tuple[Path, Path]]:
    """Folders with plans, and the folder of each plan's case.

    Raises:
        ValueError: no folder with plans, a split without a cohort, or a plan whose case is missing.
    """
    root = unpacked(root)
    case_root = root if case_root is None else unpacked(case_root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such file, folder or shipped cohort, expected a plan or a folder of plans")
    plans = [one for one in sorted(root.iterdir()) if one.is_dir() and is_one_plan(one)]
    if split is not None or (case_root / SPLIT_FILE).is_file():
        cohort = read_cohort(case_root)
        names = {name for part in ([split] if split else SPLITS) for name in cohort.split[part]}
        plans = [one for one in plans if one.name in names]
    if not plans:
        among = f" of the split {split}" if split else ""
        raise ValueError(f"{root}: no subfolder{among} with a {PLAN_FILE} or {RTPLAN_FILE}, expected plans to check")
    for one in plans:
        if not (case_root / one.name / CASE_FILE).is_file():
            raise ValueError(f"{case_root / one.name}: no case, expected that of {one}; name the cohort by --case")
    return [(one, case_root / one.name) for one in plans]


def delivery_check(path: Path, opened: OpenedPatient, step_deg: float) -> DeliveryCheck:
    """Check a plan of any form, by its RTPLAN, which is written now if there is none.

    Raises:
        ValueError: no readable plan, or a plan that does not fit the case.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and looks_like_dicom(path):
        return _check(path, opened, *_dose_of_rtplan(path, opened), step_deg)
    plan_file = path / PLAN_FILE if path.is_dir() else path
    if not plan_file.is_file():  # a DICOM folder exported by a planning system
        return delivery_check(folder / RTPLAN_FILE, opened, step_deg)
    case, jawed, plan = _fitting(plan_file, opened.case)
    opened = opened._replace(case=case)
    if (folder / DOSE_FILE).is_file():
        dose_gy, source = read_dose(folder / DOSE_FILE, case.grid), DOSE_FILE
    else:
        dose_gy, source = plan_dose(jawed, plan), f"computed from {PLAN_FILE}"
    if (folder / RTPLAN_FILE).is_file():
        return _check(folder / RTPLAN_FILE, opened, dose_gy, source, step_deg)
    with TemporaryDirectory() as written:
        write_rtplan(Path(written, RTPLAN_FILE), jawed, plan, opened.link or phantom_link(case))
        return _check(Path(written, RTPLAN_FILE), opened, dose_gy, source, step_deg)


def _check(
    path: Path, opened: OpenedPatient, dose_gy: Float[Tensor, "z y x"], source: str, step_deg: float
) -> DeliveryCheck:
    return check_rtplan(path, opened.case, opened.link, dose_gy, source, step_deg=step_deg)


def _fitting(plan_file: Path, case: Case) -> tuple[Case, Case, Plan]:
    """Read a plan; the case with the arcs, wishes and gantry slowdown that it was made for; and with its jaws as well.

    Raises:
        ValueError: a plan of another case.
    """
    plan, metadata = read_plan(plan_file)
    beside = plan_file.parent / CASE_FILE
    name = read_settings(beside.parent)["case_id"] if beside.is_file() else metadata.get("case", case.case_id)
    if name != case.case_id:
        raise ValueError(f"{plan_file}: plan of case {name}, expected one of case {case.case_id}")
    with naming(plan_file):
        case = case.with_settings(**_made_for(metadata))
        check_beams(case)
    if plan.left_mm.shape != case.fluence_shape[:2]:
        raise ValueError(
            f"{plan_file}: {tuple(plan.left_mm.shape)} control points and rows, expected {case.fluence_shape[:2]} as "
            f"case {case.case_id} has"
        )
    jaws = metadata.get("jaws_mm")
    return case, case if jaws is None else within_jaws(case, tuple(jaws)), plan


def _made_for(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan's metadata say about its case; those of older plans say less."""
    plain = {name: metadata[name] for name in ("isocentre_mm", "wishes", "gantry_slowdown") if name in metadata}
    arcs = {"arcs": arcs_of(metadata)} if "arcs" in metadata else {}
    return {**check_kinds(Case, plain, "plan"), **arcs}


def _dose_of_rtplan(path: Path, opened: OpenedPatient) -> tuple[Float[Tensor, "z y x"], str]:
    """The planned dose of an RTPLAN, and its origin."""
    dose_file = dose_of_plan(path.parent, read_rtplan(path).uid)
    if dose_file is not None:
        return read_rtdose(dose_file, opened.case.grid), dose_file.name
    return plan_dose(*start_plan(path, opened.case, opened.link)), "computed from the RTPLAN's sectors"


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table: a row for each plan, and the number of plans within all tolerances."""
    lines = ["| plan | " + " | ".join(COLUMNS) + " | verdict |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, row in rows.items():
        cells = [form.format(**row) for form in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {VERDICT[row['passed']]} |")
    passed = sum(row["passed"] for row in rows.values())
    return "\n".join([*lines, "", f"{passed} of {len(rows)} plans within all tolerances"])


def _raise_if_failed(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise with the figures of the first plan that is out of tolerance."""
    failed = {name: row["failed"] for name, row in rows.items() if row["failed"]}
    for name, figures in failed.items():
        others = f"; {len(failed)} of {len(rows)} plans out of tolerance" if len(rows) > 1 else ""
        raise ToleranceExceeded(f"{name}: {', '.join(figures)}{others}")


def _settings(plan: Path, step_deg: float) -> dict[str, object]:
    return {"plan": str(plan), "step_deg": step_deg, "package_version": __version__}


def _content(settings: Mapping[str, object], rows: Mapping[str, Any]) -> str:
    return text.dumps({"settings": settings, "cases": rows}, indent=1)
