"""Rows of the report's tables, as text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lightning_vmat.export.content import ReportContent
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case, protocol_label
from lightning_vmat.plan.machine import Machine
from lightning_vmat.plan.wishes import wishes_text


@dataclass(frozen=True)
class GoalRow:
    """A goal as text; `bar` is value over limit, cut at 1.5."""

    structure: str
    measure: str
    value: str
    limit: str
    met: bool
    bar: float


@dataclass(frozen=True)
class CheckRow:
    """A machine limit, and the number of violations."""

    name: str
    limit: str
    count: int


@dataclass(frozen=True)
class Published:
    """Published range of a complexity measure.

    Args:
        label: name of the measure.
        unit: its unit.
        low: lower end of the range.
        high: upper end; equal to `low` for a single published plan.
        source: source of the range.
    """

    label: str
    unit: str
    low: float | None = None
    high: float | None = None
    source: str = ""


@dataclass(frozen=True)
class ComplexityRow:
    """A measure, its published range, and the position of both on a scale from 0 to 1."""

    published: Published
    value: float
    text: str
    place: float
    band: tuple[float, float] | None


DASH = "\N{EN DASH}"
TG119 = "TG-119 prostate, two arcs, 2 Gy"
PUBLISHED = {
    "mcs_v": Published("Modulation complexity score (MCSv)", ""),
    "edge_metric_per_mm": Published(
        "Edge metric", "/mm", 0.096, 0.168, "649 passing VMAT plans, mean and one SD; action level 0.18 (Younge 2016)"
    ),
    "leaf_travel_mm": Published("Leaf travel, per active leaf and arc", "mm", 260.0, 660.0, TG119),
    "aperture_area_cm2": Published("Aperture area", "cm²", 12.0, 36.0, TG119),
    "mu": Published("Monitor units per fraction", "MU"),
    "mu_per_gy": Published("Monitor units per Gy", "MU/Gy", 301.5, 301.5, TG119 + ": 603 MU"),
}

_CHECKS = {
    "leaf_speed": ("Leaf speed", "≤ {0.leaf_speed_mm_per_s:g} mm/s at the gantry's {1}"),
    "leaf_gap": ("Leaf gap", "≥ {0.min_leaf_gap_mm:g} mm in motion, ≥ {0.min_still_leaf_gap_mm:g} mm at rest"),
    "leaf_span": ("Leaf span of a bank", "≤ {0.max_leaf_span_mm:g} mm"),
    "leaf_position": ("Leaf position", "within ±{0.max_leaf_position_mm:g} mm"),
    "interdigitation": ("Interdigitation", "as the machine allows"),
    "mu_per_deg": ("Monitor units per degree", "{0.min_mu_per_deg:g} to {0.max_mu_per_deg:g} MU/deg"),
    "not_finite": ("Finite numbers", "all"),
}


def goal_row(goal: GoalResult) -> GoalRow:
    """A clinical goal as a row: `V54 Gy <= 15 %`, `D99 % >= 54.0 Gy`."""
    return GoalRow(
        structure=goal.structure,
        measure=measure_text(goal.measure),
        value=_amount(goal.measure, goal.value),
        limit=("≥ " if goal.at_least else "≤ ") + _amount(goal.measure, goal.limit),
        met=goal.met,
        bar=min(1.5, max(0.0, goal.value / goal.limit if goal.limit > 0 else 1.5)),
    )


def _amount(measure: str, value: float) -> str:
    """A volume in percent or a dose in Gy."""
    return f"{100 * value:.1f} %" if measure.startswith("V") else f"{value:.2f} Gy"


def measure_text(measure: str) -> str:
    """`V54gy` as `V54 Gy`, `D99` as `D99 %`, `D0.01cc` as `D0.01 cc`, `max` as `Maximum`."""
    match = re.fullmatch(r"([VD][\d.]+)(gy|cc)?", measure, re.IGNORECASE)
    if match is None:
        return {"max": "Maximum", "mean": "Mean"}.get(measure, measure)
    return f"{match[1]} {({'gy': 'Gy', 'cc': 'cc'}).get((match[2] or '').lower(), '%')}"


def check_rows(content: ReportContent) -> list[CheckRow]:
    """Rows of the machine check, one for each limit."""
    slowdown = content.case.gantry_slowdown
    gantry = "full speed" if slowdown == 1 else f"full speed, slowed down to 1/{slowdown:g} where leaves need it"
    rows = []
    for key, count in content.evaluation.violations.items():
        name, limit = _CHECKS.get(key, (key.replace("_", " "), ""))
        rows.append(CheckRow(name, limit.format(content.case.machine, gantry), count))
    return rows


def complexity_rows(content: ReportContent) -> list[ComplexityRow]:
    """Rows of complexity measures with their published ranges."""
    return [_complexity_row(key, value) for key, value in content.evaluation.complexity.items()]


def _complexity_row(key: str, value: float) -> ComplexityRow:
    published = PUBLISHED.get(key, Published(key.replace("_", " "), ""))
    low, high = published.low, published.high
    top = 1.25 * max(value, high or 0.0, 1e-9)
    band = (low / top, high / top) if low is not None and high is not None else None
    return ComplexityRow(published, value, figure_text(value), max(0.0, value / top), band)


def figure_text(value: float | None, unit: str = "") -> str:
    """A figure with about three digits and its unit; a dash for None."""
    if value is None or math.isnan(value):
        return DASH
    if isinstance(value, int):
        return f"{value} {unit}".rstrip()
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3 if abs(value) < 1 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def arc_text(arc: Arc) -> str:
    """Description of an arc in one line."""
    sense = "CW" if arc.direction == "clockwise" else "CCW"
    couch = f", couch {arc.couch_deg:g}°" if arc.couch_deg else ""
    return (
        f"{arc.gantry_start_deg:g}° → {arc.gantry_stop_deg:g}° {sense}, {abs(arc.span_deg):g}° in "
        f"{arc.control_points} control points, collimator {arc.collimator_deg:g}°{couch}"
    )


def machine_text(machine: Machine) -> str:
    """The machine's name in words."""
    return machine.name.replace("_", " ")


def _unlikeness(value: float | None) -> dict[str, str]:
    """How unlike the cases of the training this one is, if the planner has a network that records them."""
    if value is None:
        return {}
    return {"Unlikeness": f"{value:.2f}: {'like' if value <= 1 else 'UNLIKE'} the cases of the training (limit 1)"}


def header_facts(content: ReportContent) -> dict[str, str]:
    """Header of the plan, in order; nothing in it but `case_id` can identify a person."""
    case: Case = content.case
    doses = ", ".join(f"{name} {case.prescription_gy[name]:g} Gy" for name in case.target_names)
    per_fraction = max(case.prescription_gy.values()) / case.fractions
    x1, x2, y1, y2 = case.beamlets.field_mm
    y_jaws = f"Y {y1:g} to {y2:g} mm"
    return {
        "Prescription": doses,
        "Fractions": f"{case.fractions} of {per_fraction:.2f} Gy",
        "Protocol": protocol_label(case.protocol),
        **({"Wishes": wishes_text(case.wishes).replace(" x ", " \N{MULTIPLICATION SIGN} ")} if case.wishes else {}),
        "Source": case.source,
        "Planner": content.result.planner,
        **_unlikeness(content.result.unlikeness),
        "Machine": machine_text(case.machine),
        "Jaws": f"X {x1:g} to {x2:g} mm, {y_jaws}" if case.machine.x_jaws else y_jaws,
        "Made": content.created.strftime("%Y-%m-%d %H:%M"),
    }
