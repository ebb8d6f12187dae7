"""One arc of an RTPLAN as its control points say it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lightning_vmat.data.dicom.files import shown

Numbers = NDArray[np.float64]
DIRECTIONS = {"CW": "clockwise", "CC": "counterclockwise"}
JAWS = (("ASYMX", "X"), ("ASYMY", "Y"))
SAME_DEG, WEIGHT_TOLERANCE = 0.01, 1e-6
LARGEST_MM = 1000.0


@dataclass(frozen=True)
class BeamPath:
    """The control points of an arc; between two of them everything is linear in the monitor units given.

    Args:
        gantry_start_deg: gantry angle at the first control point.
        gantry_stop_deg: at the last.
        direction: `clockwise` or `counterclockwise`.
        collimator_deg: constant.
        couch_deg: constant.
        leaf_edges_mm: boundaries of the leaf pairs.
        travelled_deg: degrees from the first control point, ascending `[point]`.
        given_mu: monitor units of one fraction given before each control point `[point]`.
        left_mm: tips of bank X1 `[point, leaf_pair]`.
        right_mm: tips of bank X2.
        jaws_mm: X and Y jaws, wide open where there are none `[point, 2, 2]`.

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


def read_beam_path(beam: Dataset, mu: float, path: Path) -> BeamPath:
    """The control points of a beam.

    Args:
        beam: item of the Beam Sequence.
        mu: its monitor units.
        path: of the file, for messages.

    Raises:
        ValueError: a beam that is not a photon arc under an MLC along x, or whose numbers make no sense.
    """
    where = f"{path}: beam {beam.BeamNumber}"
    points = list(beam.ControlPointSequence)
    direction = str(points[0].get("GantryRotationDirection", ""))
    if str(beam.get("RadiationType", "PHOTON")) != "PHOTON" or direction not in DIRECTIONS or len(points) < 2:
        raise ValueError(f"{where} is no photon arc, expected arcs only")
    gantry = _filled(points, "GantryAngle", where)
    travelled = _travelled(gantry, direction, where)
    edges, leaves, jaws = _devices(beam, points, where)
    pairs = len(edges) - 1
    return BeamPath(
        gantry_start_deg=float(gantry[0]),
        gantry_stop_deg=float(gantry[-1]),
        direction=DIRECTIONS[direction],
        collimator_deg=_constant(points, "BeamLimitingDeviceAngle", where),
        couch_deg=_constant(points, "PatientSupportAngle", where),
        leaf_edges_mm=edges,
        travelled_deg=travelled,
        given_mu=mu * _meterset(beam, points, where),
        left_mm=leaves[:, :pairs],
        right_mm=leaves[:, pairs:],
        jaws_mm=jaws.reshape(-1, 2, 2),
    )


def _travelled(gantry: Numbers, direction: str, where: str) -> Numbers:
    """Degrees from the beginning, ascending."""
    sign = 1.0 if direction == "CW" else -1.0
    steps = (sign * np.diff(gantry)) % 360.0
    steps[steps > 360.0 - SAME_DEG] = 0.0
    travelled = np.concatenate(([0.0], steps.cumsum()))
    if not 1.0 <= travelled[-1] <= 360.0 + SAME_DEG:
        raise ValueError(f"{where}: gantry turns by {travelled[-1]:.1f} degrees, expected 1 to 360 in one direction")
    return travelled


def _meterset(beam: Dataset, points: list[Dataset], where: str) -> Numbers:
    """Share of the monitor units given before each control point, from 0 to 1."""
    weights = np.array([float(point.CumulativeMetersetWeight) for point in points])
    final = float(beam.FinalCumulativeMetersetWeight)
    whole = abs(weights[-1] - final) <= WEIGHT_TOLERANCE * abs(final)
    if not (final > 0 and whole and abs(weights[0]) <= WEIGHT_TOLERANCE * final and (np.diff(weights) >= 0).all()):
        raise ValueError(f"{where}: cumulative meterset weights do not rise from 0 to {final:g}")
    return weights / final


def _filled(points: list[Dataset], name: str, where: str) -> Numbers:
    """An attribute at every control point; one that is left out is as before."""
    values: list[float] = []
    for point in points:
        value = point.get(name)
        if value in (None, "") and not values:
            raise ValueError(f"{where}: no {name} at the first control point")
        values.append(values[-1] if value in (None, "") else float(value))
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {name} holds NaN or infinite numbers")
    return np.array(values)


def _constant(points: list[Dataset], name: str, where: str) -> float:
    values = _filled(points, name, where)
    if np.ptp(values) > SAME_DEG:
        raise ValueError(f"{where}: {name} turns during the arc, expected it constant")
    return float(values[0]) % 360.0


def _devices(beam: Dataset, points: list[Dataset], where: str) -> tuple[tuple[float, ...], Numbers, Numbers]:
    """Leaf boundaries; leaf tips `[point, 2 pairs]`; jaws `[point, 4]`, fully open where there are none."""
    kinds = {str(device.RTBeamLimitingDeviceType): device for device in beam.BeamLimitingDeviceSequence}
    if {"MLCX1", "MLCX2"} <= kinds.keys():
        raise ValueError(f"{where}: two layers of leaves, as Halcyon and Ethos have, which is not supported")
    mlcs = [kind for kind in kinds if kind.startswith("MLC")]
    if mlcs != ["MLCX"]:
        raise ValueError(f"{where}: collimators {shown(', '.join(kinds), 40) or 'none'}, expected one MLC, MLCX")
    edges = tuple(float(edge) for edge in kinds["MLCX"].LeafPositionBoundaries)
    if len(edges) < 2 or sorted(set(edges)) != list(edges):
        raise ValueError(f"{where}: leaf boundaries do not ascend")
    leaves = _positions(points, ("MLCX",), 2 * (len(edges) - 1), where)
    jaws = [
        _positions(points, names, 2, where)
        if set(names) & set(kinds)
        else np.tile([-LARGEST_MM, LARGEST_MM] if names[0] == "ASYMX" else [edges[0], edges[-1]], (len(points), 1))
        for names in JAWS
    ]
    return edges, leaves, np.concatenate(jaws, axis=1)


def _positions(points: list[Dataset], names: tuple[str, ...], count: int, where: str) -> Numbers:
    """Positions of one device at every control point; where it is left out it stands as before."""
    rows: list[Any] = []
    for index, point in enumerate(points):
        for item in point.get("BeamLimitingDevicePositionSequence") or []:
            if str(item.RTBeamLimitingDeviceType) in names:
                rows.append([float(value) for value in item.LeafJawPositions])
        if len(rows) == index:
            if not rows:
                raise ValueError(f"{where}: no {names[0]} positions at the first control point")
            rows.append(rows[-1])
        if len(rows) != index + 1 or len(rows[-1]) != count:
            raise ValueError(f"{where}: {names[0]} positions of control point {index}, expected {count} numbers")
    table = np.array(rows)
    if not np.isfinite(table).all() or np.abs(table).max() > LARGEST_MM:
        raise ValueError(f"{where}: {names[0]} positions that are no positions in mm")
    return table
