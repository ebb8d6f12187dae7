"""The part of a plan that stays fixed while leaves and monitor units are optimised."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

MAX_SLOWDOWN = 10.0
"""Of the gantry; an arc would take ten minutes."""


@dataclass(frozen=True)
class BeamSetup:
    """Control points, beamlet grid and machine.

    Args:
        control_points: gantry, collimator and couch angles.
        beamlets: the beamlet grid, with the jaws.
        machine: geometry and limits.
        gantry_slowdown: how many times as long as at the gantry's full speed a sector may take where its leaves need
            it, at least 1. The gantry slows down in such sectors, and delivery takes longer.
    """

    control_points: ControlPoints
    beamlets: BeamletGrid
    machine: Machine
    gantry_slowdown: float = 1.0

    @property
    def same_arc(self) -> Bool[Tensor, " step"]:
        """Whether each control point and the next belong to one arc."""
        return self.control_points.arc_index[1:] == self.control_points.arc_index[:-1]

    @property
    def x_jaws_mm(self) -> tuple[float, float]:
        """X1 and X2, infinitely far apart on a machine without X jaws."""
        x1, x2, _, _ = self.beamlets.field_mm
        return (x1, x2) if self.machine.x_jaws else (-math.inf, math.inf)


def check_gantry_slowdown(slowdown: float, where: str = "planner") -> None:
    """Raise a ValueError for a gantry that may go faster than its full speed, or hardly moves."""
    if not 1 <= slowdown <= MAX_SLOWDOWN:
        raise ValueError(f"{where}: gantry_slowdown {slowdown}, expected 1 to {MAX_SLOWDOWN:g}")
