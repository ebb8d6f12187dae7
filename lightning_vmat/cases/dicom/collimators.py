"""Positions of leaves and jaws at the control points of a beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.beam_table import UnsupportedPlan
from lightning_vmat.cases.dicom.files import shown_word

Numbers = NDArray[np.float64]
JAWS = (("ASYMX", "X"), ("ASYMY", "Y"))
LARGEST_MM = 1000.0
OVERLAP_MM = 0.5  # allowed overlap of opposed leaves or jaws, for rounded files


def read_collimators(beam: Dataset, points: list[Dataset], where: str) -> tuple[tuple[float, ...], Numbers, Numbers]:
    """Leaf boundaries; leaf tips `[point, 2 pairs]`; jaws `[point, 4]`, fully open if there are none. All in mm.

    Raises:
        ValueError: positions that are missing, superfluous, out of order or not numbers.
        UnsupportedPlan: other collimators than one MLC along x, and jaws.
    """
    kinds = [str(device.RTBeamLimitingDeviceType) for device in beam.get("BeamLimitingDeviceSequence") or []]
    if {"MLCX1", "MLCX2"} <= set(kinds):
        raise UnsupportedPlan(f"{where}: two layers of leaves (as in Halcyon and Ethos), expected one MLC")
    jaw_kinds = [kind for kind in kinds if kind != "MLCX"]
    one_each = all(sum(kind in names for kind in jaw_kinds) <= 1 for names in JAWS)
    if kinds.count("MLCX") != 1 or not one_each or not set(jaw_kinds) <= {name for names in JAWS for name in names}:
        found = ", ".join(shown_word(kind) for kind in kinds[:6]) or "none"
        raise UnsupportedPlan(f"{where}: collimators {found}, expected one MLC, MLCX, and jaws in x and y")
    edges = _leaf_edges(beam.BeamLimitingDeviceSequence[kinds.index("MLCX")], where)
    _check_kinds(points, kinds, where)
    leaves = _positions(points, ("MLCX",), len(edges) - 1, where)
    jaws = [
        _positions(points, names, 1, where)
        if set(names) & set(kinds)
        else np.tile([-LARGEST_MM, LARGEST_MM] if names[0] == "ASYMX" else [edges[0], edges[-1]], (len(points), 1))
        for names in JAWS
    ]
    return edges, leaves, np.concatenate(jaws, axis=1)


def _leaf_edges(mlc: Dataset, where: str) -> tuple[float, ...]:
    edges = tuple(float(edge) for edge in mlc.LeafPositionBoundaries)
    if len(edges) < 2 or sorted(set(edges)) != list(edges):
        raise ValueError(f"{where}: leaf boundaries, expected ascending values")
    stated = mlc.get("NumberOfLeafJawPairs")
    if stated not in (None, "") and int(stated) != len(edges) - 1:
        raise ValueError(f"{where}: boundaries of {len(edges) - 1} leaf pairs, expected {int(stated)}")
    return edges


def _check_kinds(points: list[Dataset], kinds: list[str], where: str) -> None:
    """Raise if a device that the beam does not have has a position."""
    for index, point in enumerate(points):
        for item in point.get("BeamLimitingDevicePositionSequence") or []:
            if str(item.RTBeamLimitingDeviceType) not in kinds:
                kind = shown_word(item.RTBeamLimitingDeviceType)
                raise ValueError(f"{where}, control point {index}: positions of {kind}, expected {', '.join(kinds)}")


def _positions(points: list[Dataset], names: tuple[str, ...], pairs: int, where: str) -> Numbers:
    """Positions of one device at every control point; a missing position keeps its last value."""
    rows: list[Any] = []
    for index, point in enumerate(points):
        for item in point.get("BeamLimitingDevicePositionSequence") or []:
            if str(item.RTBeamLimitingDeviceType) in names:
                rows.append([float(value) for value in item.LeafJawPositions])
        if len(rows) == index:
            if not rows:
                raise ValueError(f"{where}: {names[0]} positions missing at the first control point, expected some")
            rows.append(rows[-1])
        if len(rows) != index + 1 or len(rows[-1]) != 2 * pairs:
            raise ValueError(f"{where}: {names[0]} positions of control point {index}, expected {2 * pairs} numbers")
    table = np.array(rows)
    if not np.isfinite(table).all() or np.abs(table).max() > LARGEST_MM:
        raise ValueError(f"{where}: {names[0]} positions out of range, expected mm")
    if (table[:, :pairs] - table[:, pairs:]).max() > OVERLAP_MM:
        index = int((table[:, :pairs] - table[:, pairs:]).max(axis=1).argmax())
        raise ValueError(f"{where}: opposed {names[0]} positions of control point {index} overlap, expected X1 <= X2")
    return table
