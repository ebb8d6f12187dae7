"""Splits the control points of a beam where the gantry reverses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.beam_table import UnsupportedPlan
from lightning_vmat.cases.dicom.files import shown_word

Numbers = NDArray[np.float64]
SENSES = {"CW": 1, "CC": -1, "NONE": 0}
SAME_DEG = 0.01
TREMBLE_DEG = 0.5  # a logged gantry may go back this far without reversing
SHORTEST_DEG, LONGEST_DEG = 1.0, 360.0


@dataclass(frozen=True)
class GantryTurn:
    """Control points between which the gantry turns in one direction.

    Args:
        first: index of the first control point.
        last: index of the last control point.
        sense: 1 for increasing gantry angles, -1 for decreasing ones.
        travelled: gantry travel from the first control point to each one, degrees, never decreasing.
    """

    first: int
    last: int
    sense: int
    travelled: Numbers


def gantry_turns(points: list[Dataset], gantry_deg: Numbers, where: str) -> list[GantryTurn]:
    """Split a beam into turns. A turn continues while the gantry stands or jitters.

    Args:
        points: items of the Control Point Sequence.
        gantry_deg: gantry angle at each control point.
        where: file and beam, for messages.

    Raises:
        ValueError: angles that contradict the rotation direction, or a turn of more than 360 degrees.
        UnsupportedPlan: a static gantry.
    """
    senses = _senses(points, where)
    moves = _moves(gantry_deg, senses, where)
    return [_turn(moves, first, last, sense, where) for first, last, sense in _runs(senses, moves, where)]


def _senses(points: list[Dataset], where: str) -> list[int]:
    """Sense of rotation from each control point to the next; a missing one keeps its last value."""
    senses: list[int] = []
    for index, point in enumerate(points[:-1]):
        word = point.get("GantryRotationDirection")
        if word in (None, ""):
            senses.append(senses[-1] if senses else 0)
        elif str(word) in SENSES:
            senses.append(SENSES[str(word)])
        else:
            raise ValueError(
                f"{where}, control point {index}: GantryRotationDirection {shown_word(word)}, expected CW, CC or NONE"
            )
    return senses


def _moves(gantry_deg: Numbers, senses: list[int], where: str) -> Numbers:
    """Degrees from each control point to the next, positive for increasing gantry angles.

    A small step against the direction is jitter, unless the gantry makes no other step: 180.1 to 179.9 degrees in
    two control points is nearly a full turn.
    """
    steps, sense = np.diff(gantry_deg), np.array(senses)
    shortest = (steps + 180.0) % 360.0 - 180.0
    forward = sense * ((sense * steps) % 360.0)
    still = np.abs(shortest) <= TREMBLE_DEG
    lost = np.flatnonzero((sense == 0) & ~still)
    if len(lost):
        raise ValueError(
            f"{where}, control point {lost[0]}: gantry turns by {shortest[lost[0]]:.1f} degrees without a direction, "
            "expected CW or CC"
        )
    if np.abs(shortest).sum() <= TREMBLE_DEG:
        return np.asarray(forward)
    return np.where(still, shortest, forward)


def _runs(senses: list[int], moves: Numbers, where: str) -> list[tuple[int, int, int]]:
    """First and last control point and sense of each turn."""
    turning = [sense if abs(sum_of_run) >= TREMBLE_DEG else 0 for sense, sum_of_run in _totals(senses, moves)]
    if not any(turning):
        raise UnsupportedPlan(f"{where}: gantry stands (a static or step-and-shoot field), expected an arc")
    known = next(sense for sense in turning if sense)
    for index, sense in enumerate(turning):
        known = sense or known
        turning[index] = known
    runs, first = [], 0
    for sense, group in groupby(turning):
        last = first + len(list(group))
        runs.append((first, last, sense))
        first = last
    return runs


def _totals(senses: list[int], moves: Numbers) -> list[tuple[int, float]]:
    """For each step its sense, and the gantry travel of the adjoining steps of the same sense."""
    totals: list[tuple[int, float]] = []
    for sense, group in groupby(zip(senses, moves, strict=True), key=lambda pair: pair[0]):
        steps = [move for _, move in group]
        totals += [(sense, float(sum(steps)))] * len(steps)
    return totals


def _turn(moves: Numbers, first: int, last: int, sense: int, where: str) -> GantryTurn:
    travelled = np.concatenate(([0.0], sense * np.cumsum(moves[first:last])))
    total = float(travelled[-1])
    if not SHORTEST_DEG <= total <= LONGEST_DEG + SAME_DEG:
        raise ValueError(
            f"{where}: gantry turns by {total:.1f} degrees in one direction from control point {first} to {last}, "
            f"expected {SHORTEST_DEG:g} to {LONGEST_DEG:g}"
        )
    return GantryTurn(first, last, sense, np.maximum.accumulate(travelled).clip(0.0, total))
