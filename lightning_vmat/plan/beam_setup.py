"""The part of a plan that stays fixed while leaves and monitor units are optimised."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine


@dataclass(frozen=True)
class BeamSetup:
    """Control points, beamlet grid and machine.

    Args:
        control_points: gantry, collimator and couch angles.
        beamlets: the beamlet grid, with the jaws.
        machine: geometry and limits.
    """

    control_points: ControlPoints
    beamlets: BeamletGrid
    machine: Machine

    @property
    def same_arc(self) -> Bool[Tensor, " step"]:
        """Whether each control point and the next belong to one arc."""
        return self.control_points.arc_index[1:] == self.control_points.arc_index[:-1]
