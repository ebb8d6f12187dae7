"""Reads an RTPLAN to start from, on the arcs and the field of a case."""

from __future__ import annotations

from pathlib import Path

import torch

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.one_patient import check_plan
from lightning_vmat.cases.dicom.rtplan import RtPlan, read_rtplan
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.jaws import within_jaws

SAME_DEG, SAME_PLACE_MM = 0.1, 0.1
MOST_OUTSIDE = 0.01  # fraction of the open area outside the field


def start_plan(path: Path, case: Case, link: PatientLink | None) -> tuple[Case, Plan]:
    """The case with the jaws of an RTPLAN, and the RTPLAN's plan at the control points and on the rows of the case.

    Args:
        path: path of the RTPLAN.
        case: case of the same fractions, arcs, isocentre and field; the number of control points may differ.
        link: DICOM objects of a case from DICOM, else None.

    Raises:
        ValueError: a broken file, or a plan that does not fit the case.
    """
    plan = _read(path, case, link)
    plan.check_machine(case.machine)
    check_patient(plan, case, link)
    if wrong := _misfit(plan, case):
        raise ValueError(f"{path}: {wrong} as case {case.case_id} has")
    sectors = [arc.control_points for arc in case.arcs]
    if [arc.control_points for arc in plan.arcs] != sectors:
        plan = _read(path, case, link, sectors)
    jawed = within_jaws(case, plan.jaws_mm)
    return jawed, plan.on_rows(jawed.beamlets)


def planned_case(path: Path, case: Case, link: PatientLink | None) -> tuple[Case, Plan]:
    """The case with the arcs, isocentre, field and fractions of an RTPLAN of the same patient, and its plan.

    Raises:
        ValueError: a broken file, or a plan of another patient or machine.
    """
    plan = _read(path, case, link)
    check_patient(plan, case, link)
    if not _misfit(plan, case):
        return start_plan(path, case, link)
    field = plan.beamlet_grid(case.machine, case.beamlets.beamlet_width_mm)
    own = case.with_settings(arcs=plan.arcs, isocentre_mm=plan.isocentre_mm, beamlets=field, fractions=plan.fractions)
    return own, plan.on_rows(field)


def _read(path: Path, case: Case, link: PatientLink | None, sectors: list[int] | None = None) -> RtPlan:
    """Read the RTPLAN, in the given numbers of sectors, or in sectors no larger than those of the case."""
    largest_deg = max(abs(arc.span_deg) / arc.control_points for arc in case.arcs)
    position = link.patient_position if link else ""
    return read_rtplan(path, sectors, largest_sector_deg=largest_deg, ct_position=position)


def check_patient(plan: RtPlan, case: Case, link: PatientLink | None) -> None:
    """Raise a ValueError if the coordinates are another patient's, or the isocentre is outside the CT."""
    if link:
        check_plan(plan, link)
    place = case.grid.index_coordinates(torch.tensor(plan.isocentre_mm))
    if not all(-0.5 <= at <= count - 0.5 for at, count in zip(place.tolist(), reversed(case.grid.shape), strict=True)):
        raise ValueError(f"{plan.path}: isocentre {plan.isocentre_mm} mm lies outside the CT of case {case.case_id}")


def _misfit(plan: RtPlan, case: Case) -> str:
    """The first difference between a plan and a case, and the expected value; empty if there is none."""
    if plan.fractions != case.fractions:
        return f"{plan.fractions} fractions, expected {case.fractions}"
    away = max(abs(ours - theirs) for ours, theirs in zip(case.isocentre_mm, plan.isocentre_mm, strict=True))
    if away > SAME_PLACE_MM:
        return f"isocentre {plan.isocentre_mm} mm, expected {case.isocentre_mm} mm"
    if len(plan.arcs) != len(case.arcs):
        return f"{len(plan.arcs)} arcs, expected {len(case.arcs)}"
    for number, (theirs, ours) in enumerate(zip(plan.arcs, case.arcs, strict=True), start=1):
        if not _same_way(theirs, ours):
            return f"arc {number} {_way(theirs)}, expected {_way(ours)}"
    outside = plan.outside(case.beamlets)
    if outside > MOST_OUTSIDE:
        low, high = case.beamlets.beamlet_start_mm, case.beamlets.beamlet_stop_mm
        rows = case.beamlets.leaf_edges_mm
        return (f"{outside:.0%} of its openings outside the field, expected them from {low:g} to {high:g} mm along and "
                f"{rows[0]:g} to {rows[-1]:g} mm across the leaves")  # fmt: skip
    return ""


def _same_way(one: Arc, other: Arc) -> bool:
    pairs = (
        (one.gantry_start_deg, other.gantry_start_deg),
        (one.collimator_deg, other.collimator_deg),
        (one.couch_deg, other.couch_deg),
    )
    turned = max(abs((theirs - ours + 180.0) % 360.0 - 180.0) for theirs, ours in pairs)
    return turned <= SAME_DEG and abs(one.span_deg - other.span_deg) <= SAME_DEG


def _way(arc: Arc) -> str:
    return (f"from {arc.gantry_start_deg:g} to {arc.gantry_stop_deg:g} deg {arc.direction}, collimator "
            f"{arc.collimator_deg:g}, couch {arc.couch_deg:g}")  # fmt: skip
