"""Evaluation of clinical goals by dose-volume histograms."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vmat.objectives.goal import DoseVolume, GoalResult
from lightning_vmat.objectives.protocol import Protocol


def evaluate_goals(
    dvhs: Mapping[str, DoseVolume],
    protocol: Protocol,
    prescription_gy: Mapping[str, float] | None = None,
) -> list[GoalResult]:
    """Evaluates every clinical goal of a protocol.

    Args:
        dvhs: dose-volume histogram by structure.
        protocol: the protocol with the goals.
        prescription_gy: prescription of the case by target; the protocol's if None.

    Raises:
        ValueError: a goal that is not optional, for a structure without a histogram.
    """
    prescription_gy = prescription_gy or protocol.prescription_gy
    results = []
    for goal in protocol.goals:
        if goal.structure not in dvhs:
            if goal.optional:
                continue
            raise ValueError(
                f"protocol {protocol.name}: goal {goal.measure} of structure {goal.structure!r}, "
                f"which the case lacks; it has {sorted(dvhs)}"
            )
        value, limit = goal.value(dvhs[goal.structure]), goal.limit
        if goal.of_prescription:
            limit *= prescription_gy.get(goal.structure, max(prescription_gy.values()))
        met = value >= limit - 1e-4 if goal.at_least is not None else value <= limit + 1e-4
        results.append(GoalResult(goal.structure, goal.measure, value, limit, goal.at_least is not None, met))
    return results
