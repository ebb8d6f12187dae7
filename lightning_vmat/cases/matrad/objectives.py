"""matRad's dose objectives and constraints as lines of a protocol, and in words what no line can say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lightning_vmat.cases.matrad.stored_objective import StoredObjective

LINEAR, QUADRATIC = 1, 2
GEUD_EXPONENTS = (1.0, 50.0)
CONSTRAINT = "a goal by which the plan is judged, not a constraint"


@dataclass(frozen=True)
class Translation:
    """What became of one objective or constraint.

    Args:
        objectives: lines of a protocol's `objectives`, without the structure.
        goals: lines of its `goals`, without the structure.
        note: what the lines do not say; empty if they mean the same.
    """

    objectives: list[dict[str, Any]] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def translate(stored: StoredObjective, *, is_target: bool, fractions: int, dose_factor: float = 1.0) -> Translation:
    """The lines that mean the same as matRad's objective.

    matRad optimises the dose of one fraction, for which it divides the doses of objectives by the number of fractions.
    Squares of doses then count `fractions^2` times less than here, where dose is that of the course, and linear terms
    `fractions` times less; so linear ones are multiplied by `fractions`, and all weigh as in matRad.

    Args:
        stored: an objective or constraint.
        is_target: whether it belongs to a target.
        fractions: number of fractions.
        dose_factor: what makes doses of the whole course of its doses.

    Raises:
        ValueError: a dose, volume or penalty that makes no sense.
    """
    if stored.quantity or stored.kind not in TRANSLATORS:
        return Translation(note="left out: no such objective here")
    is_constraint = stored.kind in CONSTRAINTS
    if not is_constraint and not 0 <= stored.penalty < math.inf:
        raise ValueError(f"penalty is {stored.penalty:g}, expected a number >= 0")
    if stored.penalty == 0:
        return Translation(note="left out: its penalty is 0")
    found = TRANSLATORS[stored.kind](stored, is_target, fractions, dose_factor)
    if stored.robustness not in ("none", "") and not found.note.startswith("left out"):
        extra = f"robustness {stored.robustness} left out, the dose of the plan without errors counts"
        return Translation(found.objectives, found.goals, "; ".join(filter(None, (found.note, extra))))
    return found


def dose_gy(stored: StoredObjective, at: int, factor: float) -> float:
    """A parameter that is a dose, of the whole course.

    Raises:
        ValueError: no number of at least 0.
    """
    value = factor * stored.parameter(at)
    if not 0 <= value < math.inf:
        raise ValueError(f"dose is {value:g} Gy, expected a number >= 0")
    return round(value, 6)


def _share(stored: StoredObjective, at: int) -> float:
    percent = stored.parameter(at)
    if not 0 <= percent <= 100:
        raise ValueError(f"volume is {percent:g} %, expected 0 to 100")
    return round(percent / 100, 6)


def _line(kind: str, weight: float, **values: float) -> dict[str, Any]:
    return {"type": kind, **values, "weight": float(weight)}


def _deviation(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    limit = dose_gy(stored, 0, factor)
    under = [_line("squared_underdose", stored.penalty, limit_gy=limit)] if limit > 0 else []
    return Translation([*under, _line("squared_overdose", stored.penalty, limit_gy=limit)])


def _overdose(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    return Translation([_line("squared_overdose", stored.penalty, limit_gy=dose_gy(stored, 0, factor))])


def _underdose(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    return Translation([_line("squared_underdose", stored.penalty, limit_gy=dose_gy(stored, 0, factor))])


def _mean(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    reference, difference = factor * stored.parameter(0, 0.0), stored.parameter(1, LINEAR)
    if difference == QUADRATIC:
        return _above(stored.penalty, reference, 1.0, is_target)
    if difference != LINEAR or reference != 0:
        return Translation(note=f"left out: distance of the mean from {reference:g} Gy, expected 0 Gy or the quadratic")
    return Translation([_line("mean", stored.penalty * fractions)])


def _eud(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    exponent = stored.parameter(1)
    low, high = GEUD_EXPONENTS
    if stored.parameter(2, QUADRATIC) != QUADRATIC or math.isnan(
        stored.parameter(0)
    ):  # before matRad 2.10 there is none
        return Translation(note="left out: linear in the EUD")
    if not low <= exponent <= high:
        return Translation(note=f"left out: exponent {exponent:g}, expected {low:g} to {high:g}")
    return _above(stored.penalty, dose_gy(stored, 0, factor), exponent, is_target)


def _above(penalty: float, limit: float, exponent: float, is_target: bool) -> Translation:
    """`(G - limit)^2`, of which a limit above 0 keeps the part above: an organ is not to reach it from below."""
    if is_target and limit > 0:
        return Translation(note=f"left out: a mean or EUD of {limit:g} Gy that a target shall reach from below too")
    note = f"counts above {limit:g} Gy only, in matRad also below" if limit > 0 else ""
    return Translation([_line("geud", penalty, limit_gy=limit, exponent=exponent)], note=note)


def _min_dvh(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    limit, share = dose_gy(stored, 0, factor), _share(stored, 1)
    line = _line("min_dvh", stored.penalty, limit_gy=limit, volume_fraction=share)
    return Translation([line], [{"measure": _volume_at(limit), "at_least": share}])


def _max_dvh(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    limit, share = dose_gy(stored, 0, factor), _share(stored, 1)
    line = _line("max_dvh", stored.penalty, limit_gy=limit, volume_fraction=share)
    return Translation([line], [{"measure": _volume_at(limit), "at_most": share}])


def _dose_bounds(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    return _bounds(stored, factor, "D100", "max")


def _mean_bounds(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    return _bounds(stored, factor, "mean", "mean")


def _bounds(stored: StoredObjective, factor: float, low_measure: str, high_measure: str) -> Translation:
    low, high = factor * stored.parameter(0, 0.0), factor * stored.parameter(1, math.inf)
    goals = [{"measure": low_measure, "at_least": round(low, 6)}] if low > 0 else []
    goals += [{"measure": high_measure, "at_most": round(high, 6)}] if high < math.inf else []
    return Translation(goals=goals, note=CONSTRAINT)


def _volume_bounds(stored: StoredObjective, is_target: bool, fractions: int, factor: float) -> Translation:
    measure, low, high = _volume_at(dose_gy(stored, 0, factor)), _share(stored, 1), _share(stored, 2)
    goals = [{"measure": measure, "at_least": low}] if low > 0 else []
    goals += [{"measure": measure, "at_most": high}] if high < 1 else []
    return Translation(goals=goals, note=CONSTRAINT)


def _volume_at(limit_gy: float) -> str:
    text = f"{limit_gy:.4f}".rstrip("0").rstrip(".")
    return f"V{text}gy"


CONSTRAINTS = {"MinMaxDose": _dose_bounds, "MinMaxMeanDose": _mean_bounds, "MinMaxDVH": _volume_bounds}
TRANSLATORS = {
    "SquaredDeviation": _deviation,
    "SquaredOverdosing": _overdose,
    "SquaredUnderdosing": _underdose,
    "MeanDose": _mean,
    "EUD": _eud,
    "MinDVH": _min_dvh,
    "MaxDVH": _max_dvh,
    **CONSTRAINTS,
}
"""matRad's class, without its package and `matRad_` -> its lines."""
