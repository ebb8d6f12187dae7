"""The arc of a PortPy patient's beams, and a beamlet grid for its fluence maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

ANGLE_DEG = 0.1  # tolerance of even spacing between the gantry angles of an arc
MULTIPLE_OF = 4  # numbers of rows and beamlets, as the networks need


def arc_of_beams(files: PortPyFolder) -> tuple[list[int], Arc]:
    """Numbers of all beams in the order of the arc, and the arc whose control points they are.

    Raises:
        ValueError: gantry angles that are unevenly spaced (except for one gap), or a rotating couch or collimator.
    """
    beams = files.all_beams()
    where, gantry = files.folder / "Beams", np.array([float(about["gantry_angle"]) % 360 for about in beams])
    fixed = {(float(about["collimator_angle"]), float(about["couch_angle"])) for about in beams}
    if len(fixed) != 1 or len(set(gantry)) != len(beams):
        raise ValueError(
            f"{where}: collimator and couch at {sorted(fixed)} deg, {len(beams)} beams at {len(set(gantry))} "
            f"gantry angles, expected one collimator and couch angle, and one beam for each gantry angle"
        )
    order = np.argsort(gantry, kind="stable")
    gaps = np.diff(gantry[order], append=gantry[order[0]] + 360)
    order = np.roll(order, -_first(gantry[order], gaps))
    along = np.diff(gantry[order]) % 360
    step = float(along[0]) if len(along) else 360.0
    if len(along) and float(np.ptp(along)) > ANGLE_DEG:
        raise ValueError(f"{where}: gantry angles {along.min():g} to {along.max():g} deg apart, expected even spacing")
    start = float(gantry[order[0]]) - step / 2
    collimator, couch = fixed.pop()
    stop = (start + step * len(order)) % 360.0
    arc = Arc(start % 360.0, stop, len(order), collimator_deg=collimator, couch_deg=couch)
    return [int(beams[i]["ID"]) for i in order], arc


def _first(gantry: NDArray[np.float64], gaps: NDArray[np.float64]) -> int:
    """Index of the first angle: after the largest gap; for a full turn at the bottom, where gantries reverse."""
    if float(np.ptp(gaps)) > ANGLE_DEG:
        return (int(np.argmax(gaps)) + 1) % len(gaps)
    return int(np.argmax(gantry >= 180.0)) if (gantry >= 180.0).any() else 0


def widened(grid: BeamletGrid, machine: Machine, where: str) -> BeamletGrid:
    """The same grid with closed rows and beamlets around it, so that both numbers divide by four.

    Raises:
        ValueError: rows that are not leaf pairs of the machine.
    """
    edges, held = np.asarray(machine.leaf_edges_mm), np.asarray(grid.leaf_edges_mm)
    first = int(np.argmin(np.abs(edges - held[0])))
    rows = grid.shape[0]
    if first + rows >= len(edges) or not np.allclose(edges[first : first + rows + 1], held, atol=1e-3):
        raise ValueError(
            f"{where}: beamlet rows from {held[0]:g} to {held[-1]:g} mm, expected leaf pairs of {machine.name}"
        )
    more = -rows % MULTIPLE_OF
    first = min(max(first - more // 2, 0), len(edges) - 1 - rows - more)
    columns = -grid.beamlets % MULTIPLE_OF
    return BeamletGrid(
        leaf_edges_mm=tuple(float(edge) for edge in edges[first : first + rows + more + 1]),
        beamlet_start_mm=grid.beamlet_start_mm - columns // 2 * grid.beamlet_width_mm,
        beamlet_width_mm=grid.beamlet_width_mm,
        beamlets=grid.beamlets + columns,
    )
