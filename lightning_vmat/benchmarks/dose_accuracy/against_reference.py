"""Compares our dose of each reference field with that of another engine, without a scaling factor.

Gamma compares our whole dose. Depth dose and width are compared without the scatter that the other engine drops
beyond its lateral cut-off; its size is stated. The operator that judges plans keeps every bound. The operator on
which plans are optimised has coarser nodes: it errs by up to 3 % in the peak of one beamlet, which is stated, and
the error averages out over a field, which is bounded.

Most of the remaining difference in the peak of a 5 mm beamlet is the other engine's: it reads blurred maps linearly on
a grid of h = 0.5 mm, and the axis lies between its nodes, where the error is h^2 / 8 |f''| / f = 0.43 % on each of
two axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_vmat.benchmarks.dose_accuracy.reference_field import (
    CUTOFF_MM,
    PHANTOMS,
    SHIFT_MM,
    ReferenceField,
    ReferencePhantom,
)
from lightning_vmat.dose._reference import dose_influence
from lightning_vmat.dose.blur import FINE_NODE_STEP_MM, NODE_STEP_MM
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.metrics.check import Check
from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
from lightning_vmat.plan.beamlets import project_to_bev

GAMMA_DOSE, GAMMA_MM = 0.02, 2.0
DEPTH_DOSE = 0.01
BUILD_UP_MM = 10.0
NEAR_AXIS_MM = 15.0  # voxels from which dose on the axis is interpolated
RAY_MM, STEP_MM = 250.0, 0.25  # length of the ray on either side of the isocentre; step across the beam
COUNTS = 0.05  # of the largest dose: the dropped dose is computed above this
CHUNK = 5_000  # voxels


@dataclass(frozen=True)
class Compared:
    """Doses of a field by both engines.

    Args:
        field: the field.
        ours: our dose [z, y, x], by the operator that judges plans.
        coarse: our dose by the operator on which plans are optimised.
        index: flat indices of the body's voxels.
        depth_mm: radiological depth of these voxels.
        bev_mm: position of these voxels at the isocentre plane.
    """

    field: ReferenceField
    ours: Float[Tensor, "z y x"]
    coarse: Float[Tensor, "z y x"]
    index: Int[Tensor, " voxel"]
    depth_mm: Float[Tensor, " voxel"]
    bev_mm: Float[Tensor, "voxel 2"]

    @classmethod
    def of(cls, field: ReferenceField) -> Compared:
        """Compute our dose of a field."""
        case, index = field.case, field.case.body_index
        operators = [
            PencilBeamOperator.build(case, index, field.model, node_step_mm=step_mm)
            for step_mm in (FINE_NODE_STEP_MM, NODE_STEP_MM)
        ]
        volumes = torch.zeros(2, case.grid.voxel_count)
        volumes[:, index] = torch.stack([operator.forward(field.fluence) for operator in operators])
        bev, _ = project_to_bev(
            case.grid.centres_mm(index), case.control_points, case.isocentre_mm, case.machine.sad_mm
        )
        depth_mm = operators[0].sampling.depth_mm[0].float()
        ours, coarse = volumes.view(2, *case.grid.shape)
        return cls(field, ours, coarse, index, depth_mm, bev[0])

    def checks(self) -> Iterator[Check]:
        """All figures of the field."""
        name = self.field.name
        gamma = gamma_index(
            self.field.dose,
            self.ours,
            self.field.case.grid,
            dose_fraction=GAMMA_DOSE,
            distance_mm=GAMMA_MM,
            max_gamma=1.1,
        )
        yield Check(name, "gamma 2 %/2 mm, 10 % cut-off: pass rate", gamma_pass_rate(gamma), low=0.99)
        yield from self._axis()
        yield from self._width()
        yield from self._tails()

    def _axis(self) -> Iterator[Check]:
        """Figures along the ray through the middle beamlet, deeper than the build-up."""
        sad_mm = self.field.case.machine.sad_mm
        above = torch.arange(-RAY_MM, RAY_MM, self.field.case.grid.spacing_mm[0])
        points = self._points(self._middle() * (1 - above / sad_mm)[:, None], above)
        deep = self._at(self._volume(self.depth_mm), points) > BUILD_UP_MM
        deep &= self._at(self._volume(torch.ones_like(self.depth_mm)), points) > 0.999  # no air nearby
        name, theirs = self.field.name, self._at(self.field.dose, points[deep])
        defined, judging, optimising, whole = (
            _worst(self._at(dose, points[deep]), theirs)
            for dose in (self._defined, self.ours - self._beyond, self.coarse - self._beyond, self.ours)
        )
        depth_dose, coarse_bound = "depth dose beyond 10 mm", math.inf if self.field.beamlet else DEPTH_DOSE
        yield Check(name, f"{depth_dose}, as defined: largest difference", defined, high=DEPTH_DOSE)
        yield Check(name, f"{depth_dose}, {FINE_NODE_STEP_MM:g} mm nodes (judges plans)", judging, high=DEPTH_DOSE)
        yield Check(name, f"{depth_dose}, {NODE_STEP_MM:g} mm nodes (optimises)", optimising, high=coarse_bound)
        if not self.field.beamlet:
            yield Check(name, f"{depth_dose}, scatter kept that the reference drops", whole)

    def _width(self) -> Iterator[Check]:
        """Figures across the beam in the isocentre plane, along both axes."""
        reach = torch.arange(-RAY_MM, RAY_MM + STEP_MM, STEP_MM)
        for axis, label in ((0, "x"), (1, "y")):
            places = self._middle().repeat(len(reach), 1)
            places[:, axis] += reach
            points = self._points(places, torch.zeros(len(reach)))
            doses = (self.ours, self.ours - self._beyond, self.field.dose)
            ours, kept, theirs = (_width_mm(reach, self._at(dose, points)) for dose in doses)
            name = f"50 % width along {label}, mm: difference"
            yield Check(self.field.name, name, kept - theirs, low=-0.5, high=0.5)
            if not self.field.beamlet:
                yield Check(self.field.name, f"{name}, scatter kept that the reference drops", ours - theirs)

    def _tails(self) -> Iterator[Check]:
        """Figures of the dose that the other engine drops, beyond its cut-off from every beamlet."""
        nearest = torch.cdist(self.bev_mm, self._open_places()).amin(dim=1)
        share = self.ours.flatten()[self.index[nearest > CUTOFF_MM]].amax() / self.field.dose.max()
        yield Check(self.field.name, "largest dose where the reference drops all, of its maximum", float(share))

    @cached_property
    def _defined(self) -> Float[Tensor, "z y x"]:
        """Dose near the axis, computed beamlet by beamlet from the model, with the cut-off of the other engine."""
        near = (self.bev_mm - self._middle()).norm(dim=1) < NEAR_AXIS_MM
        return self._by_beamlet(near, beyond=False)

    @cached_property
    def _beyond(self) -> Float[Tensor, "z y x"]:
        """Dose from beamlets beyond the cut-off of the other engine, which it drops."""
        theirs = self.field.dose.flatten()[self.index]
        reached = torch.cdist(self.bev_mm, self._open_places()).amax(dim=1) > CUTOFF_MM
        return self._by_beamlet(reached & (theirs > COUNTS * theirs.max()), beyond=True)

    def _by_beamlet(self, wanted: Bool[Tensor, " voxel"], *, beyond: bool) -> Float[Tensor, "z y x"]:
        """Dose from the open beamlets within the other engine's cut-off, or from those beyond it."""
        case, dose = self.field.case, torch.zeros(len(self.index))
        centres = torch.cartesian_prod(case.beamlets.leaf_centres_mm, case.beamlets.beamlet_centres_mm).flip(-1)
        for part in filter(len, torch.split(wanted.nonzero()[:, 0], CHUNK)):
            far = torch.cdist(self.bev_mm[part], centres - SHIFT_MM) > CUTOFF_MM
            influence = dose_influence(case, self.index[part], self.field.model).flatten(1)
            dose[part] = (influence * ((far == beyond) * self.field.fluence.flatten())).sum(dim=1).float()
        return self._volume(dose)

    def _open_places(self) -> Float[Tensor, "beamlet 2"]:
        """Axes of the open beamlets at the isocentre plane, mm, as the other engine states them."""
        _, leaf, beamlet = self.field.fluence.nonzero().unbind(-1)
        grid = self.field.case.beamlets
        return torch.stack((grid.beamlet_centres_mm[beamlet], grid.leaf_centres_mm[leaf]), dim=-1) - SHIFT_MM

    def _middle(self) -> Float[Tensor, " 2"]:
        """Position of the open beamlet nearest to the beam axis, mm, as used by the other engine."""
        places = self._open_places()
        return places[places.norm(dim=1).argmin()] + SHIFT_MM

    def _points(self, bev_mm: Float[Tensor, "point 2"], above_mm: Float[Tensor, " point"]) -> Float[Tensor, "point 3"]:
        """Patient coordinates, mm, of beam coordinates; the third axis is from the isocentre to the source."""
        axes = self.field.case.control_points.beam_axes()[0]
        return torch.cat((bev_mm, above_mm[:, None]), dim=1) @ axes + torch.tensor(self.field.case.isocentre_mm)

    def _volume(self, values: Float[Tensor, " voxel"]) -> Float[Tensor, "z y x"]:
        """Values of the body's voxels on the grid."""
        grid = self.field.case.grid
        return torch.zeros(grid.voxel_count).index_copy(0, self.index, values).view(grid.shape)

    def _at(self, volume: Float[Tensor, "z y x"], points_mm: Float[Tensor, "point 3"]) -> Float[Tensor, " point"]:
        """A volume interpolated linearly at points."""
        place = self.field.case.grid.index_coordinates(points_mm)
        place = (2 * place + 1) / torch.tensor(volume.shape[::-1]) - 1
        return F.grid_sample(volume[None, None], place[None, None, None], align_corners=False)[0, 0, 0, 0]


def _worst(ours: Tensor, theirs: Tensor) -> float:
    return float((ours / theirs - 1).abs().max())


def _width_mm(place_mm: Tensor, dose: Tensor) -> float:
    """Distance between the points of half the central dose, mm."""
    half = dose[place_mm == 0] / 2
    left, right = place_mm <= 0, place_mm >= 0
    return _fall(-place_mm[left].flip(0), dose[left].flip(0), half) + _fall(place_mm[right], dose[right], half)


def _fall(distance_mm: Tensor, dose: Tensor, level: Tensor) -> float:
    """Distance at which the dose first falls below a level, mm."""
    after = int((dose < level).nonzero()[0, 0])
    share = (dose[after - 1] - level) / (dose[after - 1] - dose[after])
    return float(torch.lerp(distance_mm[after - 1], distance_mm[after], share))


def reference_checks(folder: Path) -> Iterator[Check]:
    """All figures of all fields and beamlets in a folder of reference doses."""
    for name in PHANTOMS:
        for field in ReferencePhantom.read(folder / f"{name}.npz").fields():
            yield from Compared.of(field).checks()
