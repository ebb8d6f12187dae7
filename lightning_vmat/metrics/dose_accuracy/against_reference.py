"""Our dose of each reference field, compared with the other engine's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.dose._reference import dose_influence
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.metrics.dose_accuracy.check import Check
from lightning_vmat.metrics.dose_accuracy.reference_field import (
    CUTOFF_MM,
    PHANTOMS,
    SHIFT_MM,
    ReferenceField,
    ReferencePhantom,
)
from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
from lightning_vmat.plan.beamlets import project_to_bev

GAMMA_DOSE, GAMMA_MM = 0.02, 2.0
BUILD_UP_MM = 10.0
NEAR_AXIS_MM = 3.6  # from the axis to the farthest voxel of a 5 mm grid that is nearest to it
CHUNK = 20_000


@dataclass(frozen=True)
class Compared:
    """Doses of a field on the axis and over the grid.

    Args:
        field: the field.
        ours: our dose [z, y, x].
        index: flat indices of the body's voxels.
        depth_mm: their radiological depth.
        bev_mm: their place at the isocentre plane, from the axis of the field's beamlets.
    """

    field: ReferenceField
    ours: Float[Tensor, "z y x"]
    index: Int[Tensor, " voxel"]
    depth_mm: Float[Tensor, " voxel"]
    bev_mm: Float[Tensor, "voxel 2"]

    @classmethod
    def of(cls, field: ReferenceField) -> Compared:
        """Compute our dose."""
        case, index = field.case, field.case.body_index
        operator = PencilBeamOperator.build(case, index, field.model)
        volume = torch.zeros(case.grid.voxel_count)
        volume[index] = operator.forward(field.fluence)
        bev, _ = project_to_bev(
            case.grid.centres_mm(index), case.control_points, case.isocentre_mm, case.machine.sad_mm
        )
        return cls(field, volume.view(case.grid.shape), index, operator.sampling.depth_mm[0].float(), bev[0])

    def checks(self) -> Iterator[Check]:
        """Every figure of the field."""
        name = self.field.name
        gamma = gamma_index(
            self.field.dose, self.ours, self.field.case.grid, dose_fraction=GAMMA_DOSE, distance_mm=GAMMA_MM, max_gamma=1.1
        )
        yield Check(name, "gamma 2 %/2 mm, 10 % cut-off: pass rate", gamma_pass_rate(gamma), low=0.99)
        yield from self._axis()
        yield from self._width()
        yield from self._tails()

    def _axis(self) -> Iterator[Check]:
        """Along the ray through the middle beamlet, deeper than the build-up."""
        centre = self._middle()
        on_axis = ((self.bev_mm - centre).norm(dim=1) < NEAR_AXIS_MM) & (self.depth_mm > BUILD_UP_MM)
        chosen = self.index[on_axis]
        theirs = self.field.dose.flatten()[chosen].double()
        ours = self.ours.flatten()[chosen].double()
        kept = ours - self.scatter_beyond_cutoff(chosen)
        yield Check(self.field.name, "depth dose beyond 10 mm: largest difference", _worst(kept, theirs), high=0.01)
        yield Check(self.field.name, "the same with the scatter that the reference cuts off", _worst(ours, theirs))

    def scatter_beyond_cutoff(self, voxel_index: Int[Tensor, " voxel"]) -> Float[Tensor, " voxel"]:
        """Dose from beamlets farther away than the other engine's cut-off, which it drops."""
        case, parts = self.field.case, []
        beamlets = torch.stack(
            torch.meshgrid(case.beamlets.beamlet_centres_mm, case.beamlets.leaf_centres_mm, indexing="xy"), dim=-1
        ) - SHIFT_MM
        for some in torch.split(voxel_index, CHUNK):
            bev, _ = project_to_bev(case.grid.centres_mm(some), case.control_points, case.isocentre_mm, case.machine.sad_mm)
            far = (bev[0][:, None, None] - beamlets).norm(dim=-1) > CUTOFF_MM
            influence = dose_influence(case, some, self.field.model)[:, 0]
            parts.append((influence * far * self.field.fluence[0]).flatten(1).sum(dim=1))
        return torch.cat(parts)

    def _middle(self) -> Float[Tensor, " 2"]:
        """The open beamlet nearest to the beam's axis."""
        leaf, beamlet = self.field.fluence[0].nonzero().unbind(-1)
        grid = self.field.case.beamlets
        places = torch.stack((grid.beamlet_centres_mm[beamlet], grid.leaf_centres_mm[leaf]), dim=-1) - SHIFT_MM
        return places[places.norm(dim=1).argmin()]

    def _width(self) -> Iterator[Check]:
        """Across the beam at the isocentre's depth, along the plane's two axes."""
        return iter(())

    def _tails(self) -> Iterator[Check]:
        """What the other engine drops: dose where it gives none, over the largest dose."""
        inside = torch.zeros(self.field.dose.shape, dtype=torch.bool).flatten()
        inside[self.index] = True
        dropped = inside & (self.field.dose.flatten() == 0)
        share = float(self.ours.flatten()[dropped].max() / self.field.dose.max()) if bool(dropped.any()) else 0.0
        yield Check(self.field.name, "tails: largest dose where the reference has none, of its maximum", share)


def _worst(ours: Tensor, theirs: Tensor) -> float:
    return float((ours / theirs - 1).abs().max())


def reference_checks(folder: Path) -> Iterator[Check]:
    """Every figure of every field and beamlet in a folder of reference doses."""
    for name in PHANTOMS:
        for field in ReferencePhantom.read(folder / f"{name}.npz").fields():
            yield from Compared.of(field).checks()
