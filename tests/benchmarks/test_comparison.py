"""What a comparison of planners says of cases and of all of them."""

from __future__ import annotations

import pytest

from lightning_vmat.benchmarks.comparison import Figures, as_table, median_course, quartiles, with_gap
from lightning_vmat.planning.planner import TracePoint


def row(objective: float, met: float, violations: float) -> Figures:
    return {"objective": objective, "all_goals_met": met, "machine_violations": violations}


CASES = {
    "fluence": {"a": row(10.0, 1.0, 0.0), "b": row(20.0, 1.0, 0.0), "c": row(30.0, 1.0, 0.0)},
    "reference": {"a": row(15.0, 1.0, 0.0), "b": row(22.0, 0.0, 3.0), "c": row(45.0, 1.0, 0.0)},
}


def test_the_gap_is_to_the_bound_of_the_same_case() -> None:
    gaps = {name: figures["gap"] for name, figures in with_gap(CASES)["reference"].items()}
    assert gaps == pytest.approx({"a": 0.5, "b": 0.1, "c": 0.5})
    assert all(figures["gap"] == 0 for figures in with_gap(CASES)["fluence"].values())


def test_no_bound_no_gap() -> None:
    assert with_gap({"reference": CASES["reference"]}) == {"reference": CASES["reference"]}
    partly = with_gap({"fluence": {"a": CASES["fluence"]["a"]}, "reference": CASES["reference"]})["reference"]
    assert "gap" in partly["a"] and "gap" not in partly["b"]
    assert "gap" not in quartiles(partly.values())


def test_table_has_every_case_and_one_bad_case_cannot_hide_behind_medians() -> None:
    lines = as_table(with_gap(CASES)).splitlines()
    assert lines[0] == "| case | planner | objective | all_goals_met | machine_violations | gap |"
    assert lines[2:4] == ["| a | fluence | 10 | 1 | 0 | 0 |", "| a | reference | 15 | 1 | 0 | 0.5 |"]
    assert lines[-1] == "| all 3 | reference | 22 | 0.667 | 3 | 0.5 |"
    assert len(lines) == 2 + 3 * 2 + 2


def test_a_median_course_has_what_all_cases_note() -> None:
    courses = [
        [TracePoint("fluence", 0, 0.1 * case, 10.0 * case), TracePoint("fluence", 1, case, case)] for case in (1, 2, 9)
    ]
    courses[0].append(TracePoint("apertures", 2, 3.0, 0.5))
    assert median_course(courses) == [TracePoint("fluence", 0, 0.2, 20.0), TracePoint("fluence", 1, 2.0, 2.0)]
