"""Figures of a beam model in water, computed with the dose operator like measurements in a water tank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.beam_model import GRAY_PER_MU, BeamModel, even_beam, load_beam_model
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.metrics.check import Check
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.volume import VolumeGrid

TANK_MM = 400
BEAMLET_MM = 2.5
GENERIC_OUTPUT = {40.0: 0.913, 50.0: 0.9305, 200.0: 1.0825}
MACHINE_OUTPUT = {40.0: 0.880, 80.0: 0.970, 200.0: 1.088, 300.0: 1.128}


@dataclass(frozen=True)
class WaterTank:
    """A beam on a wide tank of water, from the front.

    Args:
        model: the beam model.
    """

    model: BeamModel

    def depth_dose(self, side_mm: float, isocentre_depth_mm: float) -> Float[Tensor, " millimetre"]:
        """Dose of 1 MU, Gy, on the axis of a square field at depths 0.5, 1.5, 2.5, ... mm.

        Args:
            side_mm: side of the field at the isocentre.
            isocentre_depth_mm: depth of the isocentre; 0 for a source-surface distance equal to the SAD.
        """
        count = round(side_mm / BEAMLET_MM)
        edges = tuple(BEAMLET_MM * i - side_mm / 2 for i in range(count + 1))
        grid = VolumeGrid((3, TANK_MM, 3), (300.0, 1.0, 300.0), (-300.0, 0.5, -300.0))
        water = torch.ones(grid.shape, dtype=torch.bool)
        case = Case(
            case_id="water tank",
            source="phantom",
            grid=grid,
            hu=torch.zeros(grid.shape),
            structures={BODY: water, "Target": water},
            prescription_gy={"Target": 1.0},
            fractions=1,
            isocentre_mm=(0.0, isocentre_depth_mm, 0.0),
            arcs=(Arc(-0.5, 0.5, 1),),
            beamlets=BeamletGrid(edges, -side_mm / 2, BEAMLET_MM, count),
            machine_name="truebeam_millennium120",
            protocol="none",
        )
        on_axis = torch.arange(grid.voxel_count).view(grid.shape)[1, :, 1]
        operator = PencilBeamOperator.build(case, on_axis, self.model)
        return operator.forward(torch.ones(operator.fluence_shape))

    @cached_property
    def at_surface(self) -> Float[Tensor, " millimetre"]:
        """Depth dose of the 10 x 10 cm field, with the isocentre on the surface."""
        return self.depth_dose(100.0, 0.0)

    @property
    def percentage_depth_dose(self) -> float:
        """Dose at 10 cm depth over the maximum, of `at_surface`."""
        return float(_at(self.at_surface, 100) / self.at_surface.max())

    @property
    def depth_of_maximum_mm(self) -> float:
        """Depth of the maximum of `at_surface`, mm."""
        return float(self.at_surface.argmax()) + 0.5

    @property
    def tissue_phantom_ratio(self) -> float:
        """TPR20,10: dose at the isocentre 20 cm deep over dose 10 cm deep."""
        return float(_at(self.depth_dose(100.0, 200.0), 200) / _at(self.depth_dose(100.0, 100.0), 100))

    def output_factor(self, side_mm: float) -> float:
        """Dose at the isocentre at 10 cm depth, over that of the 10 x 10 cm field."""
        return float(_at(self.depth_dose(side_mm, 100.0), 100) / _at(self.depth_dose(100.0, 100.0), 100))


def _at(dose: Tensor, depth_mm: int) -> Tensor:
    """Dose at a depth in whole millimetres, which is between two voxels."""
    return dose[depth_mm - 1 : depth_mm + 1].mean()


def generic_checks() -> Iterator[Check]:
    """Figures of the built-in 6 MV beam.

    Reference: output factors: Nyholm, Olofsson, Ahnesjo, Karlsson, Radiother Oncol 78:347 (2006), integrated.
    """
    tank, name = WaterTank(load_beam_model("generic_6mv")), "generic_6mv in water"
    yield Check(name, "TPR20,10 of 10 x 10 cm", tank.tissue_phantom_ratio, 0.662, 0.672)
    yield Check(name, "depth of maximum, mm (10 x 10 cm, SSD 100 cm)", tank.depth_of_maximum_mm, 14.0, 16.0)
    yield Check(name, "PDD10 (10 x 10 cm, SSD 100 cm)", tank.percentage_depth_dose, 0.66, 0.67)
    yield from _output_checks(name, tank, GENERIC_OUTPUT)
    yield from _beside_machine_file(name, tank)
    peak = float(tank.at_surface.max())
    yield Check(name, "Gy per MU at dmax (10 x 10 cm, SSD 100 cm)", peak, 0.995 * GRAY_PER_MU, 1.005 * GRAY_PER_MU)


def _beside_machine_file(name: str, tank: WaterTank) -> Iterator[Check]:
    """Output factors over those of matRad: two public 6 MV models, which differ by more than 2 % below 5 x 5 cm."""
    for side_mm in (40.0, 80.0, 200.0):
        measure = f"output factor {side_mm / 10:g} x {side_mm / 10:g} cm over matRad's {MACHINE_OUTPUT[side_mm]:.3f}"
        ratio = tank.output_factor(side_mm) / MACHINE_OUTPUT[side_mm]
        yield Check(name, measure, ratio) if side_mm < 50 else Check(name, measure, ratio, 0.98, 1.02)


def machine_file_checks(path: Path) -> Iterator[Check]:
    """Output factors of matRad's generic machine file, which has an even beam."""
    yield from _output_checks(f"{path.name} in water", WaterTank(even_beam(load_beam_model(path))), MACHINE_OUTPUT)


def _output_checks(name: str, tank: WaterTank, expected: dict[float, float]) -> Iterator[Check]:
    for side_mm, factor in expected.items():
        measure = f"output factor {side_mm / 10:g} x {side_mm / 10:g} cm, 10 cm deep"
        yield Check(name, measure, tank.output_factor(side_mm), 0.98 * factor, 1.02 * factor)
