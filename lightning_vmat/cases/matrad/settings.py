"""What a matRad file's `pln` and `stf` say of the plan: fractions, and where the isocentre is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.matrad.ct import number, numbers
from lightning_vmat.cases.matrad.mat_files import records
from lightning_vmat.plan.volume import VolumeGrid

SAME_MM = 0.1
MARGIN_MM = 10.0  # around the box of the targets
Point = tuple[float, float, float]


def read_fractions(pln: Any, default: int) -> tuple[int, float]:
    """Number of fractions, and what makes doses of the whole course of the objectives' doses.

    matRad's are doses of the course; pyRadPlan's are those of a fraction unless `pln` says otherwise.

    Args:
        pln: of the file; None without one.
        default: fractions where it does not say.

    Raises:
        ValueError: no whole number, or another convention.
    """
    pln = pln if isinstance(pln, Mapping) else {}
    given = records(pln.get("numOfFractions"))
    fractions = number(given[0], "pln.numOfFractions") if given else float(default)
    if fractions < 1 or fractions != round(fractions):
        raise ValueError(f"pln.numOfFractions is {fractions:g}, expected a whole number >= 1")
    convention = str(pln.get("doseConvention", "total"))
    if convention not in ("total", "per_fraction"):
        raise ValueError(f"pln.doseConvention is {convention!r}, expected total or per_fraction")
    return int(fractions), fractions if convention == "per_fraction" else 1.0


def read_isocentre(pln: Any, stf: Any, grid: VolumeGrid, targets_mm: NDArray[np.floating[Any]]) -> Point | None:
    """The isocentre in the coordinates of the grid; None where the file has none.

    From version 3, matRad's isocentres are in the coordinates of `ct.x`, `ct.y` and `ct.z`; before, they are the number
    of the voxel, from 1, times the resolution. The file does not say which: it is the one that lies at the targets.

    Args:
        pln: of the file, whose isocentre counts; None without one.
        stf: the same.
        grid: of the CT.
        targets_mm: voxels of the targets `[voxel, 3]`.

    Raises:
        ValueError: several isocentres, or one that is at the targets in both ways or in none.
    """
    name, places = _stored(pln, stf)
    if not len(places):
        return None
    if np.abs(places - places[0]).max() > SAME_MM:
        raise ValueError(f"{name}: {len(places)} beams about different isocentres, expected one for an arc")
    as_world = places[0]
    as_cube = np.asarray(grid.origin_mm) + places[0] - np.asarray(grid.spacing_mm)
    low, high = targets_mm.min(axis=0) - MARGIN_MM, targets_mm.max(axis=0) + MARGIN_MM
    at_targets = [place for place in (as_world, as_cube) if ((low <= place) & (place <= high)).all()]
    if len(at_targets) == 2 and np.abs(as_world - as_cube).max() <= SAME_MM:
        at_targets = [as_world]
    if len(at_targets) != 1:
        ways = " or ".join(f"({x:.1f}, {y:.1f}, {z:.1f})" for x, y, z in (as_world, as_cube))
        how = "both lie at the targets" if at_targets else "neither lies at the targets"
        raise ValueError(f"{name} means {ways} mm, and {how}; --use_isocentre false takes the targets' centre")
    x, y, z = (round(float(value), 4) for value in at_targets[0])
    return x, y, z


def _stored(pln: Any, stf: Any) -> tuple[str, NDArray[np.float64]]:
    """Isocentre of each beam `[beam, 3]`, and the field that holds it."""
    pln = pln if isinstance(pln, Mapping) else {}
    beams = pln.get("propStf")
    found: dict[str, list[Any]] = {
        "pln.propStf.isoCenter": records(beams.get("isoCenter")) if isinstance(beams, Mapping) else [],
        "pln.isoCenter": records(pln.get("isoCenter")),
        "stf.isoCenter": [one["isoCenter"] for one in records(stf) if isinstance(one, Mapping) and "isoCenter" in one],
    }
    for name, values in found.items():
        if values:
            flat = np.concatenate([numbers(value, name) for value in values])
            if len(flat) % 3 or not len(flat):
                raise ValueError(f"{name} holds {len(flat)} numbers, expected x, y and z for each beam")
            return name, flat.reshape(-1, 3)
    return "", np.empty((0, 3))
