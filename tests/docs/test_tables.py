"""The tables of the results, from figures small enough to check by hand."""

from __future__ import annotations

import runpy
from typing import Any

import pytest
from readme import ROOT

TABLES = runpy.run_path(str(ROOT / "tests/benchmarks/tables.py"))["TABLES"]
ROW = {
    "all_goals_met": 1.0,
    "hi": 0.05,
    "d98": 0.96,
    "paddick": 0.87,
    "edge_metric_per_mm": 0.04,
    "mu_per_gy": 200.0,
    "dose_evaluations": 20.0,
    "seconds": 8.0,
    "machine_violations": 0.0,
}


def row(objective: float, **figures: float) -> dict[str, float]:
    return {**ROW, "objective": objective, **figures}


def test_planners_are_compared_case_by_case() -> None:
    """The median of ratios, not the ratio of medians: here 10 %, and not 300 / 200 - 1."""
    reference = {"a": row(100.0), "b": row(200.0), "c": row(1000.0)}
    other = {"a": row(300.0, machine_violations=2.0), "b": row(220.0, all_goals_met=0.0), "c": row(900.0)}
    table = TABLES["planners"]({"cases": {"reference": reference, "learned@20": other}})
    first, second, _, violations = table.splitlines()
    assert first.startswith(
        "| reference | 200 [150, 600] |  | 3 of 3 | 0.050 | 0.960 | 0.870 | 0.040 | 200 | 20 | 8.0 |"
    )
    assert second.startswith("| learned@20 | 300 [260, 600] | +10.0% [+0.0%, +105.0%] | 2 of 3 |")
    assert violations == "machine violations: 2"


@pytest.mark.parametrize(("sign", "shown"), [(1, "+"), (-1, "-")])
def test_delivery_shows_the_worst(sign: int, shown: str) -> None:
    def plan(change: float, gamma: float, dose_gy: float, seconds: float, passed: bool) -> dict[str, Any]:
        return {
            "objective_change": sign * change,
            "gamma_1_1": gamma,
            "worst_target_gy": sign * dose_gy,
            "delivery_s": seconds,
            "passed": passed,
        }

    rows = {"a": plan(0.001, 1.0, 0.02, 60.0, True), "b": plan(-0.02, 0.99, 0.0, 70.0, False)}
    table = TABLES["delivery"]({"cases": rows})
    assert f"{'-' if sign > 0 else '+'}2.00%" in table and "99.00%" in table and f"{shown}0.020 Gy" in table
    assert "65 [62, 68] s" in table and "1 of 2" in table
