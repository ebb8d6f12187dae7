"""Rows of the tables that compare two plans of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_vmat.export.tables import DASH, PUBLISHED, Published, figure_text, goal_row, measure_text
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.planning.evaluation import Evaluation

DOSES = {"d95_gy": "D95", "d2_gy": "D2", "mean_gy": "Mean", "max_gy": "Max"}
SAME = 5e-3  # fraction of the limit, or of the larger value, below which plans count as equal


@dataclass(frozen=True)
class SideBySide:
    """One figure of two plans.

    Args:
        label: what is measured.
        limit: clinical limit; empty if there is none.
        ours: value of the reported plan, with its unit.
        theirs: value of the compared plan.
        difference: ours minus theirs.
        ours_met: whether the reported plan meets the limit; None without a limit.
        theirs_met: whether the compared plan meets the limit.
        better: whether the reported plan is better (True), worse (False), or neither.
    """

    label: str
    limit: str
    ours: str
    theirs: str
    difference: str
    ours_met: bool | None = None
    theirs_met: bool | None = None
    better: bool | None = None


def goals_side_by_side(ours: Sequence[GoalResult], theirs: Sequence[GoalResult]) -> list[tuple[str, SideBySide]]:
    """Structure and figures of each clinical goal that both plans have."""
    others = {(goal.structure, goal.measure): goal for goal in theirs}
    return [
        (goal.structure, _goal_row(goal, others[goal.structure, goal.measure]))
        for goal in ours
        if (goal.structure, goal.measure) in others
    ]


def figures_side_by_side(ours: Evaluation, theirs: Evaluation) -> list[SideBySide]:
    """Objective, goals met, violations, delivery time and complexity; unknown figures are a dash."""
    met = (sum(goal.met for goal in ours.goals), sum(goal.met for goal in theirs.goals))
    rows = [
        _row("Objective over the whole body", "", (ours.objective, theirs.objective), lower_is_better=True),
        _row(f"Clinical goals met, of {len(ours.goals)}", "", met, lower_is_better=False),
        _row("Machine violations", "", (_broken(ours), _broken(theirs)), lower_is_better=True),
        _row("Shortest delivery", "s", (ours.delivery_s, theirs.delivery_s)),
    ]
    for key in dict.fromkeys((*ours.complexity, *theirs.complexity)):
        published = PUBLISHED.get(key, Published(key.replace("_", " "), ""))
        pair = (ours.complexity.get(key), theirs.complexity.get(key))
        rows.append(_row(published.label, published.unit, pair))
    return rows


def doses_side_by_side(ours: Evaluation, theirs: Evaluation) -> dict[str, list[tuple[str, str, str]]]:
    """Ours, theirs and difference in Gy of each dose figure, by structure; the columns are those of `DOSES`."""
    rows = {}
    for name, mine in ours.structures.items():
        other = theirs.structures.get(name)
        if other is not None:
            rows[name] = [_dose_cell(mine.get(key), other.get(key)) for key in DOSES]
    return rows


def _dose_cell(ours: float | None, theirs: float | None) -> tuple[str, str, str]:
    if ours is None or theirs is None:
        return DASH, DASH, ""
    return f"{ours:.1f}", f"{theirs:.1f}", _signed(ours - theirs, "{:+.1f}")


def _goal_row(ours: GoalResult, theirs: GoalResult) -> SideBySide:
    mine, other = goal_row(ours), goal_row(theirs)
    gain = (ours.value - theirs.value) * (1 if ours.at_least else -1)
    share, unit = (100.0, "{:+.1f} %") if ours.measure.startswith("V") else (1.0, "{:+.2f} Gy")
    return SideBySide(
        label=measure_text(ours.measure),
        limit=mine.limit,
        ours=mine.value,
        theirs=other.value,
        difference=_signed(share * (ours.value - theirs.value), unit),
        ours_met=ours.met,
        theirs_met=theirs.met,
        better=gain > 0 if abs(gain) > SAME * abs(ours.limit) else None,
    )


def _broken(plan: Evaluation) -> int | None:
    """Number of violations; None if the leaves of the plan are unknown."""
    return sum(plan.violations.values()) if plan.complexity else None


def _row(
    label: str, unit: str, pair: tuple[float | None, float | None], lower_is_better: bool | None = None
) -> SideBySide:
    mine, other = (figure_text(value, unit) for value in pair)
    ours, theirs = pair
    if ours is None or theirs is None or not (math.isfinite(ours) and math.isfinite(theirs)):
        return SideBySide(label, "", mine, other, "")
    change = ours - theirs
    equal = abs(change) <= SAME * max(abs(ours), abs(theirs))
    better = None if equal or lower_is_better is None else (change < 0) == lower_is_better
    counted = isinstance(ours, int) or not theirs
    difference = _signed(change, "{:+g}") if counted else _signed(100 * change / theirs, "{:+.1f} %")
    return SideBySide(label, "", mine, other, difference, better=better)


def _signed(value: float, form: str) -> str:
    """A difference with its sign, or without a sign if it rounds to 0."""
    text = form.format(value)
    return text.lstrip("+-") if float(text.split()[0]) == 0 else text
