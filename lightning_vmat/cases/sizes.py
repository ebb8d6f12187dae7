"""Sizes: numbers of control points, beamlets and voxels of a case."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

NODAL_LEAF_PAIRS, NODAL_WIDTH_MM = 40, 240.0  # all leaf pairs of 5 mm width
MULTIPLE_OF = 4  # numbers of rows and beamlets, as the networks need


@dataclass(frozen=True)
class Size:
    """Resolution of a case and of its plan.

    Args:
        control_points: number of control points in each arc.
        leaf_pairs_per_row: leaf pairs that move together as one row of the fluence map.
        rows: rows of the fixed field of phantoms.
        beamlet_width_mm: width of a beamlet along leaf travel.
        beamlets: beamlets in a row of the fixed field of phantoms.
        voxel_mm: edge of a phantom's cubic voxels.
        optimised_voxels: voxels in the sample on which plans are optimised.
    """

    control_points: int
    leaf_pairs_per_row: int
    rows: int
    beamlet_width_mm: float
    beamlets: int
    voxel_mm: float
    optimised_voxels: int

    @property
    def sector_deg(self) -> float:
        """Size of a sector of a full arc, degrees."""
        return 360.0 / self.control_points

    def centred_field(self, machine: Machine) -> BeamletGrid:
        """The fixed field around the central axis.

        Raises:
            ValueError: the machine has too few leaf pairs for it.
        """
        return self._field(machine, self.rows, self.beamlets)

    def nodal_field(self, machine: Machine) -> BeamletGrid:
        """The fixed field of a phantom whose pelvic nodes are treated, at least 20 cm x 24 cm.

        Raises:
            ValueError: the machine has too few leaf pairs for it.
        """
        rows = math.ceil(NODAL_LEAF_PAIRS / self.leaf_pairs_per_row / MULTIPLE_OF) * MULTIPLE_OF
        beamlets = math.ceil(NODAL_WIDTH_MM / self.beamlet_width_mm / MULTIPLE_OF) * MULTIPLE_OF
        return self._field(machine, rows, beamlets)

    def _field(self, machine: Machine, rows: int, beamlets: int) -> BeamletGrid:
        edges = machine.leaf_edges_mm
        pairs = rows * self.leaf_pairs_per_row
        first = (len(edges) - 1 - pairs) // 2
        if first < 0:
            raise ValueError(f"machine {machine.name}: {len(edges) - 1} leaf pairs, expected at least {pairs}")
        return BeamletGrid(
            leaf_edges_mm=tuple(edges[first : first + pairs + 1 : self.leaf_pairs_per_row]),
            beamlet_start_mm=-beamlets * self.beamlet_width_mm / 2,
            beamlet_width_mm=self.beamlet_width_mm,
            beamlets=beamlets,
        )


SIZES = {
    "tiny": Size(12, 3, 8, 15.0, 8, voxel_mm=8.0, optimised_voxels=1_000),
    "demo": Size(36, 2, 12, 10.0, 12, voxel_mm=5.0, optimised_voxels=3_000),
    "base": Size(90, 1, 24, 5.0, 24, voxel_mm=4.0, optimised_voxels=40_000),
    "clinical": Size(180, 1, 40, 2.5, 40, voxel_mm=2.5, optimised_voxels=60_000),
}


def get_size(name: str) -> Size:
    """Look up a size by name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SIZES:
        raise ValueError(f"size {name!r}: expected one of {', '.join(SIZES)}")
    return SIZES[name]
