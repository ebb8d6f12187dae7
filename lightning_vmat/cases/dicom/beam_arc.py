"""The arcs of one beam of an RTPLAN, as its control points describe them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.beam_motion import BeamMotion, Numbers
from lightning_vmat.cases.dicom.beam_table import UnsupportedPlan, check_beam
from lightning_vmat.cases.dicom.collimators import read_collimators
from lightning_vmat.cases.dicom.fraction_group import TreatedBeam
from lightning_vmat.cases.dicom.gantry_turns import SAME_DEG, GantryTurn, gantry_turns

DIRECTIONS = {1: "clockwise", -1: "counterclockwise"}
START_TOLERANCE, END_TOLERANCE = 1e-6, 1e-4  # for cumulative meterset weights, as a fraction of the final one
SMALLEST_SECTOR_DEG = 0.5  # logged arcs have thousands of control points
STANDING_SHARE, STANDING_MM = 0.01, 1.0


@dataclass(frozen=True)
class BeamArc:
    """An arc as delivered: between control points everything moves in proportion to the monitor units.

    Args:
        gantry_start_deg: gantry angle at the beginning.
        gantry_stop_deg: gantry angle at the end.
        direction: `clockwise` or `counterclockwise`.
        collimator_deg: collimator angle, constant.
        couch_deg: couch angle, constant.
        leaf_edges_mm: boundaries of the leaf pairs.
        travelled_deg: gantry travel from the beginning to each control point, never decreasing `[point]`.
        given_mu: monitor units of one fraction given before each control point `[point]`.
        left_mm: tips of bank X1 `[point, leaf_pair]`.
        right_mm: tips of bank X2 `[point, leaf_pair]`.
        jaws_mm: X and Y jaws, wide open if there are none `[point, 2, 2]`.

    Reference: DICOM PS3.3, C.8.8.14.5 (control points, cumulative meterset).
    """

    gantry_start_deg: float
    gantry_stop_deg: float
    direction: str
    collimator_deg: float
    couch_deg: float
    leaf_edges_mm: tuple[float, ...]
    travelled_deg: Numbers
    given_mu: Numbers
    left_mm: Numbers
    right_mm: Numbers
    jaws_mm: Numbers

    def natural_sectors(self, halves: bool, largest_deg: float = math.inf) -> int:
        """Number of sectors: one for each step between control points, or for two steps; more if these are too large.

        Args:
            halves: whether each sector has a control point in its middle.
            largest_deg: largest size of a sector.
        """
        steps = np.diff(self.travelled_deg)
        step = max(float(np.median(steps[steps > SAME_DEG])), SMALLEST_SECTOR_DEG)
        total = float(self.travelled_deg[-1])
        sectors = max(1, round(total / step))
        sectors = sectors // 2 if halves and sectors % 2 == 0 else sectors
        return sectors * max(1, math.ceil((total / sectors - SAME_DEG) / largest_deg))

    def cut(self, sectors: int) -> BeamMotion:
        """Equal sectors, with the monitor units between their ends, and leaves and jaws at their middles."""
        ends = self.travelled_deg[-1] * np.arange(sectors + 1) / sectors
        given_at_ends = _at(ends, self.travelled_deg, self.given_mu[:, None])[:, 0]
        given_at_ends[[0, -1]] = self.given_mu[[0, -1]]  # includes what is given there while the gantry stands still
        middles = (ends[:-1] + ends[1:]) / 2
        return BeamMotion(
            gantry_start_deg=self.gantry_start_deg,
            gantry_stop_deg=self.gantry_stop_deg,
            direction=self.direction,
            collimator_deg=self.collimator_deg,
            couch_deg=self.couch_deg,
            leaf_edges_mm=self.leaf_edges_mm,
            mu=np.diff(given_at_ends),
            left_mm=_at(middles, self.travelled_deg, self.left_mm),
            right_mm=_at(middles, self.travelled_deg, self.right_mm),
            jaws_mm=_at(middles, self.travelled_deg, self.jaws_mm.reshape(-1, 4)).reshape(-1, 2, 2),
        )


def read_arcs(beam: TreatedBeam, where: str) -> list[BeamArc]:
    """Read the arcs of a beam: one, or more if the gantry reverses. Turns without monitor units are left out.

    Args:
        beam: photon arc with an MLC along x.
        where: file and beam, the beginning of messages.

    Raises:
        ValueError: values that are invalid or contradict each other.
        UnsupportedPlan: a beam of another kind.
    """
    item = beam.item
    points = list(item.get("ControlPointSequence") or [])
    _check_points(item, points, where)
    check_beam(item, where)
    gantry = _filled(points, "GantryAngle", where)
    edges, leaves, jaws = read_collimators(item, points, where)
    pairs = len(edges) - 1
    given = beam.mu * _meterset(item, points, where)
    arcs = []
    for turn in gantry_turns(points, gantry, where):
        part = slice(turn.first, turn.last + 1)
        _check_standing(turn, given[part] / beam.mu, np.concatenate((leaves, jaws), axis=1)[part], where)
        arc = BeamArc(
            gantry_start_deg=float(gantry[turn.first]),
            gantry_stop_deg=float(gantry[turn.last]),
            direction=DIRECTIONS[turn.sense],
            collimator_deg=float(_filled(points, "BeamLimitingDeviceAngle", where)[0]) % 360.0,
            couch_deg=float(_filled(points, "PatientSupportAngle", where)[0]) % 360.0,
            leaf_edges_mm=edges,
            travelled_deg=turn.travelled,
            given_mu=given[part] - given[turn.first],
            left_mm=leaves[part, :pairs],
            right_mm=leaves[part, pairs:],
            jaws_mm=jaws[part].reshape(-1, 2, 2),
        )
        arcs += [arc] if arc.given_mu[-1] > 0 else []
    return arcs


def _check_points(beam: Dataset, points: list[Dataset], where: str) -> None:
    """Raise unless all control points are present and in order."""
    stated = beam.get("NumberOfControlPoints")
    if stated not in (None, "") and int(stated) != len(points):
        raise ValueError(f"{where}: {len(points)} control points, expected {int(stated)}")
    for place, point in enumerate(points):
        index = point.get("ControlPointIndex")
        if index not in (None, "") and int(index) != place:
            raise ValueError(f"{where}: control point {int(index)} at position {place}, expected ascending order")
    if len(points) < 2:
        raise UnsupportedPlan(f"{where}: {len(points)} control points, expected an arc of two or more")


def _check_standing(turn: GantryTurn, given: Numbers, places_mm: Numbers, where: str) -> None:
    """Raise if leaves move while the gantry stands and the beam is on: a sector has one aperture."""
    standing = np.diff(turn.travelled) <= SAME_DEG
    moved = np.abs(np.diff(places_mm, axis=0)).max(axis=1) > STANDING_MM
    share = float(np.diff(given)[standing & moved].sum())
    if share > STANDING_SHARE:
        raise UnsupportedPlan(
            f"{where}: {share:.0%} of the monitor units while the gantry stands and leaves move, expected none"
        )


def _at(places: Numbers, known: Numbers, values: Numbers) -> Numbers:
    """Columns of values, interpolated linearly between known positions."""
    return np.stack([np.interp(places, known, column) for column in values.T], axis=1)


def _meterset(beam: Dataset, points: list[Dataset], where: str) -> Numbers:
    """Fraction of the monitor units given before each control point, from 0 to 1."""
    weights = np.array([float(point.CumulativeMetersetWeight) for point in points])
    final = float(beam.FinalCumulativeMetersetWeight)
    ends = abs(weights[0]) <= START_TOLERANCE * final and abs(weights[-1] - final) <= END_TOLERANCE * final
    if not (final > 0 and ends and (np.diff(weights) >= -START_TOLERANCE * final).all()):
        raise ValueError(f"{where}: cumulative meterset weights, expected values ascending from 0 to {final:g}")
    return np.asarray((np.maximum.accumulate(weights) - weights[0]) / (weights.max() - weights[0]))


def _filled(points: list[Dataset], name: str, where: str) -> Numbers:
    """An attribute at every control point; a missing one keeps its last value."""
    values: list[float] = []
    for point in points:
        value = point.get(name)
        if value in (None, "") and not values:
            raise ValueError(f"{where}: {name} missing at the first control point, expected a value")
        values.append(values[-1] if value in (None, "") else float(value))
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {name} with NaN or infinite numbers, expected finite ones")
    return np.array(values)
