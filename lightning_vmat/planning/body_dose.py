"""The dose by which plans are judged: on every voxel of the body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.blur import FINE_NODE_STEP_MM
from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.dose_operator import dose_operator


@dataclass(frozen=True)
class BodyDose:
    """Dose on `case.body_index`, from finely spaced nodes; its operators are set up once, when they are needed.

    A plan's dose takes two gantry angles a sector, one for each half of its leaf motion. Against angles every half
    degree, one angle per sector of 4 degrees leaves up to 1.1 % of the voxels beyond a gamma of 1 %/1 mm and moves the
    objective by up to 0.3 %; two angles leave none and move it by less than 0.1 % (`vmat check delivery`).

    Args:
        case: the patient, with the jaws of the plans.
    """

    case: Case

    def of_fluence(
        self, fluence_mu: Float[Tensor, "*batch control_point leaf_pair beamlet"]
    ) -> Float[Tensor, "*batch voxel"]:
        """Dose of the whole course, Gy, of fluence maps that need no leaves."""
        return self._of_sectors.forward(fluence_mu)

    def of_plan(self, plan: Plan) -> Float[Tensor, " voxel"]:
        """Dose of the whole course, Gy, that a plan delivers."""
        setup = self.case.beam_setup
        if self.case.influence_path is not None:  # known at the control points alone
            return self._of_sectors.forward(plan.fluence_mu(setup))
        return self._of_half_sectors.forward(plan.half_sector_fluence_mu(setup))

    def volume(self, dose_gy: Float[Tensor, " voxel"]) -> Float[Tensor, "z y x"]:
        """A dose on `case.body_index` as a volume, zero outside the body."""
        volume = torch.zeros(self.case.grid.voxel_count)
        volume[self.case.body_index] = dose_gy
        return volume.reshape(self.case.grid.shape)

    @cached_property
    def _of_sectors(self) -> DoseOperator:
        return dose_operator(self.case, self.case.body_index, FINE_NODE_STEP_MM)

    @cached_property
    def _of_half_sectors(self) -> DoseOperator:
        return dose_operator(with_half_sectors(self.case), self.case.body_index, FINE_NODE_STEP_MM)


def with_half_sectors(case: Case) -> Case:
    """The case with a control point in the middle of each half of its sectors."""
    return case.with_settings(arcs=tuple(replace(arc, control_points=2 * arc.control_points) for arc in case.arcs))
