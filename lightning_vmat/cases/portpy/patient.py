"""Reads PortPy patient folders: JSON metadata and HDF5 arrays, with the influence matrices of Eclipse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from torch import Tensor

from lightning_vmat.cases.portpy.beam import PortPyBeam, read_beam
from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.dose.imported_influence import BeamletColumns, ImportedInfluence
from lightning_vmat.plan.volume import VolumeGrid

Array = NDArray[np.floating]


@dataclass(frozen=True)
class PortPyPatient:
    """One patient: CT and structures on the CT grid, and influence on groups of CT voxels, the rows.

    Args:
        name: name of the folder.
        grid: grid of CT and structures, patient LPS.
        hu: CT numbers.
        structures: masks by PortPy's name (PTV, BODY, RECTUM, ...).
        row_of_voxel: row of the influence that each CT voxel belongs to, -1 for none.
        beams: the beams, in the order of their columns.
        influence: rows by the chosen beamlets, Gy per fraction (about Gy per 100 MU; uncalibrated).
    """

    name: str
    grid: VolumeGrid
    hu: Float[Tensor, "z y x"]
    structures: dict[str, Bool[Tensor, "z y x"]]
    row_of_voxel: Int[Tensor, "z y x"]
    beams: tuple[PortPyBeam, ...]
    influence: ImportedInfluence

    @property
    def row_count(self) -> int:
        """Number of rows of the dose influence, one per optimization voxel."""
        return int(self.influence.matrix.shape[0])

    @property
    def isocentre_mm(self) -> tuple[float, float, float]:
        """Isocentre of the beams, patient LPS, mm."""
        return self.beams[0].isocentre_mm

    def rows_of(self, structure: str) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
        """Rows with voxels of a structure, ascending, and the structure's volume in each, cc."""
        rows = self.row_of_voxel[self.structures[structure]]
        found, count = rows[rows >= 0].unique(return_counts=True)
        return found, count * self.grid.voxel_volume_cc

    def on_ct(self, dose_gy: Float[Tensor, " row"]) -> Float[Tensor, "z y x"]:
        """Dose of each CT voxel: that of its row, or 0 without a row."""
        return torch.where(self.row_of_voxel >= 0, dose_gy[self.row_of_voxel.clamp(min=0).long()], 0.0)

    @cached_property
    def row_centres_mm(self) -> Float[Tensor, "row 3"]:
        """Centre of the index range of each row's CT voxels, patient LPS, mm; NaN for a row without voxels."""
        place = (self.row_of_voxel >= 0).nonzero()
        rows = self.row_of_voxel[tuple(place.T)].long()[:, None].expand(-1, 3)
        low, high = (
            torch.full((self.row_count, 3), torch.nan, dtype=torch.double).scatter_reduce(
                0, rows, place.double(), reduce=how, include_self=False
            )
            for how in ("amin", "amax")
        )
        spacing, origin = (torch.tensor(v, dtype=torch.double) for v in (self.grid.spacing_mm, self.grid.origin_mm))
        return (((low + high) / 2).flip(-1) * spacing + origin).float()


def read_portpy(
    folder: Path, *, beam_ids: list[int] | None = None, full: bool = False, target: str | None = "PTV"
) -> PortPyPatient:
    """Read a patient. Matrices are read in parts and never become dense.

    Args:
        folder: folder of the patient, such as `Prostate_Patient_1`.
        beam_ids: beams to read; if None the planner's choice, or all if the folder names none.
        full: the full matrices instead of the thresholded ones.
        target: keep the beamlets that see this structure with a margin; None keeps all.

    Raises:
        ValueError: a file that is missing, broken or contradicts another, or impossible dose values.
    """
    files = PortPyFolder(Path(folder))
    grid, hu, structures, row_of_voxel = _voxels(files)
    beams, parts, columns = [], [], []
    rows = max(files.row_count(), int(row_of_voxel.max()) + 1)
    for number, about in enumerate(files.beams(beam_ids)):
        beam, matrix, placed = read_beam(files, about, number, rows=rows, full=full, target=target)
        beams.append(beam)
        parts.append(matrix)
        columns.append(placed)
    together = BeamletColumns(*(np.concatenate([getattr(c, name) for c in columns]) for name in vars(columns[0])))
    gantry = np.asarray([beam.gantry_deg for beam in beams])
    influence = ImportedInfluence(csr_array(hstack(parts, format="csr")), together, gantry)
    return PortPyPatient(files.folder.name, grid, hu, structures, row_of_voxel, tuple(beams), influence)


def _voxels(
    files: PortPyFolder,
) -> tuple[VolumeGrid, Float[Tensor, "z y x"], dict[str, Bool[Tensor, "z y x"]], Int[Tensor, "z y x"]]:
    """CT grid, CT, structures and the map from CT voxels to rows."""
    ct = files.json("CT_MetaData.json")
    where = files.folder / "CT_MetaData.json"
    spacing, origin = (files.triple(ct, name, where) for name in ("resolution_xyz_mm", "origin_xyz_mm"))
    if [round(float(v), 6) for v in ct.get("direction", np.eye(3).ravel())] != np.eye(3).ravel().tolist():
        raise ValueError(f"{where}: direction {ct['direction']}, expected the identity")
    hu = np.asarray(files.array(ct, "ct_hu_3d_File", where), np.float32)
    voxels = files.json("OptimizationVoxels_MetaData.json")
    place = files.array(voxels, "ct_to_dose_voxel_map_File", files.folder / "OptimizationVoxels_MetaData.json")
    structures = {}
    listing = files.folder / "StructureSet_MetaData.json"
    for entry in files.json("StructureSet_MetaData.json"):
        mask = files.array(entry, "structure_mask_3d_File", listing) > 0
        if mask.shape != hu.shape:
            raise ValueError(f"{listing}: structure {entry['name']} of shape {mask.shape}, expected {hu.shape}")
        structures[str(entry["name"])] = torch.from_numpy(mask)
    if place.shape != hu.shape:
        raise ValueError(f"{files.folder}: map of CT voxels of shape {place.shape}, expected {hu.shape}")
    nz, ny, nx = hu.shape
    grid = VolumeGrid((nz, ny, nx), spacing, origin)
    return grid, torch.from_numpy(hu), structures, torch.from_numpy(place.astype(np.int32))
