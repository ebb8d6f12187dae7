"""Reference doses of pyRadPlan 0.5.0, and its conventions, as observed, for our engine to compute the same.

- Beamlets lie a quarter millimetre off towards -x and -y: half a pixel of its 0.5 mm convolution grid.
- The kernels of a field are those tabulated nearest to the source-surface distance of its central ray.
- Density outside the body is zero; density follows its own curve of CT numbers, and is traced on the dose grid.
- A beamlet gives no dose farther than 50 mm from its axis, measured at the isocentre plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.dose.beam_model import BeamModel, even_beam, matrad_model
from lightning_vmat.dose.ray_tracing import hounsfield_units
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.volume import VolumeGrid

Array = NDArray[np.float64]

SHIFT_MM = -0.25
CUTOFF_MM = 50.0
SURFACE_DENSITY = 0.05
DENSITY_OF_HU = ((-1024, -999, -90, -45, 0, 100, 350, 3000), (0.001, 0.001, 0.95, 0.99, 1, 1.095, 1.199, 2.505))
MACHINE_FILE = "photons_Generic.mat"
PHANTOMS = ("box", "tg119")
ARRAYS = {"hu", "mask_BODY", "gantry_deg", "open_field_dose_zyx", "beamlet_dose_zyx", "isocenter_xyz_mm"}


@dataclass(frozen=True)
class ReferenceField:
    """A field or single beamlet with a dose of the other engine.

    Args:
        phantom: name of the phantom's file.
        beamlet: whether it is a single beamlet.
        case: the phantom on the dose grid, with the one control point and the smallest beamlet grid.
        fluence: 1 for open beamlets, else 0.
        dose: dose of the other engine.
        model: beam model at the field's source-surface distance, in the unit of dose of the machine file.
        ssd_mm: source-surface distance.
    """

    phantom: str
    beamlet: bool
    case: Case
    fluence: Float[Tensor, "1 leaf_pair beamlet"]
    dose: Float[Tensor, "z y x"]
    model: BeamModel
    ssd_mm: float

    @property
    def name(self) -> str:
        """Phantom, gantry angle and beamlets of the field, for tables."""
        gantry = float(self.case.control_points.gantry_deg[0])
        x, y = (float(c.mean()) - SHIFT_MM for c in (self.case.beamlets.beamlet_centres_mm, self.leaf_centres_mm))
        what = f"beamlet at ({x:.0f}, {y:.0f}) mm" if self.beamlet else f"{int(self.fluence.sum())} beamlets"
        return f"{self.phantom}, gantry {gantry:.0f}, {what}"

    @property
    def leaf_centres_mm(self) -> Float[Tensor, " leaf_pair"]:
        """Centres of the leaf pairs across leaf travel, mm."""
        return self.case.beamlets.leaf_centres_mm


@dataclass(frozen=True)
class ReferencePhantom:
    """A file of reference doses.

    Args:
        path: path of the file; the machine file is beside it.
        arrays: arrays of the file.
    """

    path: Path
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, path: Path) -> ReferencePhantom:
        """Read a file.

        Raises:
            ValueError: a file that is missing, broken or incomplete.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        except Exception as error:  # numpy raises many kinds of errors on broken files
            raise ValueError(f"reference dose {path}: {' '.join(str(error).split())}") from error
        for name in ARRAYS - arrays.keys():
            raise ValueError(f"reference dose {path}: array {name} missing, expected all arrays of a reference dose")
        return cls(path, arrays)

    def fields(self) -> list[ReferenceField]:
        """All fields: open fields first, then single beamlets."""
        fields = [
            self._field(float(gantry), self.arrays[f"field{i}_beamlet_pos_bev_mm"], dose)
            for i, (gantry, dose) in enumerate(
                zip(self.arrays["gantry_deg"], self.arrays["open_field_dose_zyx"], strict=True)
            )
        ]
        beamlets = zip(
            *(self.arrays[name] for name in ("beamlet_gantry_deg", "beamlet_pos_bev_mm", "beamlet_dose_zyx")),
            strict=True,
        )
        return fields + [self._field(float(gantry), place[None], dose) for gantry, place, dose in beamlets]

    @cached_property
    def grid(self) -> VolumeGrid:
        """Grid of the dose."""
        return self._grid(self.arrays["open_field_dose_zyx"].shape[1:], "dose")

    @cached_property
    def density(self) -> Float[Tensor, "z y x"]:
        """Relative electron density on the dose grid, by the conventions of the other engine."""
        density = np.interp(self.arrays["hu"], *DENSITY_OF_HU) * self.arrays["mask_BODY"]
        return self._resample(torch.from_numpy(density).float())

    @cached_property
    def body(self) -> Bool[Tensor, "z y x"]:
        """Voxels of the body on the grid of the case."""
        return self._resample(torch.from_numpy(self.arrays["mask_BODY"]).float()) >= 0.5

    def ssd_mm(self, case: Case) -> float:
        """Distance from the source at which the central ray enters matter, mm, on the faces of voxels."""
        sad_mm, step_mm = case.machine.sad_mm, 0.1
        distance = torch.arange(0.0, 2 * sad_mm, step_mm) + step_mm / 2
        axis = case.control_points.beam_axes()[0, 2]
        points = torch.tensor(case.isocentre_mm) + (sad_mm - distance)[:, None] * axis
        place = self.grid.index_coordinates(points).round().long().flip(-1)
        inside = ((place >= 0) & (place < torch.tensor(self.grid.shape))).all(dim=-1)
        z, y, x = place[inside].unbind(-1)
        return float(distance[inside][self.density[z, y, x] > SURFACE_DENSITY][0]) - step_mm / 2

    def _field(self, gantry_deg: float, bev_mm: Array, dose: NDArray[Any]) -> ReferenceField:
        width_mm = float(self.arrays["beamlet_width_mm"])
        x, y = bev_mm[:, 0], bev_mm[:, 2]
        columns, rows = (np.round((v - v.min()) / width_mm).astype(int) for v in (x, y))
        fluence = torch.zeros(1, rows.max() + 1, columns.max() + 1)
        fluence[0, rows, columns] = 1.0
        edges = y.min() - width_mm / 2 + SHIFT_MM + width_mm * np.arange(rows.max() + 2)
        start_mm = float(x.min()) - width_mm / 2 + SHIFT_MM
        isocentre_x, isocentre_y, isocentre_z = (float(v) for v in self.arrays["isocenter_xyz_mm"])
        case = Case(
            case_id=self.path.stem,
            source="reference",
            grid=self.grid,
            hu=hounsfield_units(self.density),
            structures={BODY: self.body, "Target": self.body},
            prescription_gy={"Target": 1.0},
            fractions=1,
            isocentre_mm=(isocentre_x, isocentre_y, isocentre_z),
            arcs=(Arc(gantry_deg - 0.5, gantry_deg + 0.5, 1),),
            beamlets=BeamletGrid(tuple(edges.tolist()), start_mm, width_mm, fluence.shape[2]),
            machine_name="truebeam_millennium120",
            protocol="none",
        )
        ssd_mm = self.ssd_mm(case)
        model = even_beam(matrad_model(self.path.with_name(MACHINE_FILE), ssd_mm, calibrated=False))
        volume = torch.from_numpy(np.asarray(dose, np.float32))
        return ReferenceField(self.path.stem, len(bev_mm) == 1, case, fluence, volume, model, ssd_mm)

    def _grid(self, shape: tuple[int, ...], name: str) -> VolumeGrid:
        (z, y, x), spacing, origin = shape, *(self.arrays[f"{name}_{what}_xyz_mm"] for what in ("spacing", "origin"))
        return VolumeGrid((z, y, x), *(tuple(float(v) for v in values) for values in (spacing, origin)))  # type: ignore[arg-type]

    def _resample(self, volume: Float[Tensor, "z_ct y_ct x_ct"]) -> Float[Tensor, "z y x"]:
        """Resample from the CT grid to the dose grid, linearly, 0 outside the CT."""
        ct = self._grid(tuple(volume.shape), "ct")
        place = ct.index_coordinates(self.grid.centres_mm(torch.arange(self.grid.voxel_count)))
        place = ((2 * place + 1) / torch.tensor(ct.shape[::-1]) - 1).view(1, *self.grid.shape, 3)
        return F.grid_sample(volume[None, None], place, align_corners=False)[0, 0]
