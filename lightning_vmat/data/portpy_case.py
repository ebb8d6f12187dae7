"""A PortPy patient as a case: an arc over the gantry angles that it has, its dose voxels, and its stored influence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.data.portpy import PortPyPatient, read_portpy
from lightning_vmat.data.portpy_files import PortPyFolder
from lightning_vmat.data.preparation import Loaded
from lightning_vmat.dose.imported_influence import ImportedInfluence
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import Machine, load_machine
from lightning_vmat.plan.volume import VolumeGrid

MACHINE = "truebeam_millennium120"
NAMES = {
    "BODY": "Body",
    "RECTUM": "Rectum",
    "BLADDER": "Bladder",
    "FEMUR_L": "FemoralHeadLeft",
    "FEMUR_R": "FemoralHeadRight",
    "PENILEBULB": "PenileBulb",
    "PENILE_BULB": "PenileBulb",
    "BOWEL": "Bowel",
    "BOWEL_BAG": "Bowel",
}
"""PortPy's name -> ours; all others stay. Femurs are whole ones, and judged as femoral heads."""
GY_PER_MU = 0.01  # the matrices are about Gy per 100 MU, not calibrated
ANGLE_DEG = 0.1  # how far from even the gantry angles of an arc may be
MULTIPLE_OF = 4  # rows and beamlets of the fluence maps, for the networks
HALF = 0.5  # share of a dose voxel that belongs to a structure of which it is part


@dataclass(frozen=True)
class PortPySource:
    """A PortPy patient's folder.

    Args:
        folder: of the patient.
        size: of the voxel sample for planning; beams, beamlets and voxels are the patient's own.
        protocol: shipped protocol or path of a YAML; gives target, prescription and fractions.
        full: the full matrices instead of the thresholded ones.
    """

    folder: Path
    size: str
    protocol: str
    full: bool = False

    @property
    def name(self) -> str:
        return self.folder.name

    def load(self) -> Loaded:
        """The case with its influence."""
        treatment = load_protocol(self.protocol)
        beam_ids, arc = arc_of_beams(PortPyFolder(self.folder))
        patient = read_portpy(self.folder, beam_ids=beam_ids, full=self.full)
        machine = load_machine(MACHINE)
        beamlets = widened(patient.influence.columns.smallest_grid(), machine, str(self.folder))
        blocks = Blocks.of(patient)
        structures = {NAMES.get(name, name): blocks.share(mask) >= HALF for name, mask in patient.structures.items()}
        case = Case(
            case_id=self.name,
            source="portpy",
            grid=blocks.grid,
            hu=blocks.mean(patient.hu).clamp(-1024.0, 3071.0).round(),
            structures=structures,
            prescription_gy=dict(treatment.prescription_gy),
            fractions=treatment.fractions,
            isocentre_mm=patient.isocentre_mm,
            arcs=(arc,),
            beamlets=beamlets,
            machine_name=MACHINE,
            protocol=self.protocol,
        )
        influence = _on_voxels(patient.influence, blocks.rows(patient))
        stored = influence.stored(beamlets=beamlets, gy_scale=treatment.fractions * GY_PER_MU)
        return Loaded(case, influence=stored)


def patient_folders(source: Path) -> list[Path]:
    """The folder itself if it is a patient's, else the patients in it, in the order of their numbers.

    Raises:
        ValueError: no patients.
    """
    if (source / "CT_MetaData.json").is_file():
        return [source]
    folders = sorted({path.parent for path in source.glob("*/CT_MetaData.json")})
    if not folders:
        raise ValueError(f"{source}: no patients, expected folders with CT_MetaData.json as PortPy has them")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name))


def arc_of_beams(files: PortPyFolder) -> tuple[list[int], Arc]:
    """Numbers of all beams in the order of the arc, and the arc whose control points they are.

    Raises:
        ValueError: angles that are not evenly spaced, but for one gap, or a couch or collimator that turns.
    """
    beams = files.all_beams()
    where, gantry = files.folder / "Beams", np.array([float(about["gantry_angle"]) % 360 for about in beams])
    fixed = {(float(about["collimator_angle"]), float(about["couch_angle"])) for about in beams}
    if len(fixed) != 1 or len(set(gantry)) != len(beams):
        raise ValueError(
            f"{where}: collimator and couch at {sorted(fixed)} deg, {len(beams)} beams at {len(set(gantry))} "
            f"gantry angles, expected one collimator and couch angle, and one beam an angle"
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
    """Where an arc begins: behind the largest gap; of a full turn, at the bottom, where a gantry turns round."""
    if float(np.ptp(gaps)) > ANGLE_DEG:
        return (int(np.argmax(gaps)) + 1) % len(gaps)
    return int(np.argmax(gantry >= 180.0)) if (gantry >= 180.0).any() else 0


def widened(grid: BeamletGrid, machine: Machine, where: str) -> BeamletGrid:
    """The same grid with closed rows and beamlets around it, so that both numbers divide by four.

    Raises:
        ValueError: rows that are no leaf pairs of the machine.
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


@dataclass(frozen=True)
class Blocks:
    """Dose voxels as blocks of CT voxels, aligned with the first one that has a row of the influence.

    Args:
        size: CT voxels in a block along z, y, x.
        start: first CT voxel of the first block along z, y, x.
        grid: of the blocks.
    """

    size: tuple[int, int, int]
    start: tuple[int, int, int]
    grid: VolumeGrid

    @classmethod
    def of(cls, patient: PortPyPatient) -> Blocks:
        """Blocks that hold the whole CT but for incomplete ones at its edges.

        The size is that of the largest stretch of CT voxels with one row along each axis; blocks need not be regular.
        """
        rows, ct = patient.row_of_voxel, patient.grid
        held = [(rows >= 0).any(dim=others).nonzero()[:, 0] for others in ([1, 2], [0, 2], [0, 1])]
        first = [int(place[0]) for place in held]
        size = tuple(_run_length(rows.movedim(axis, -1)) for axis in range(3))
        start = tuple(f % s for f, s in zip(first, size, strict=True))
        count = tuple((n - a) // s for n, a, s in zip(ct.shape, start, size, strict=True))
        spacing = tuple(step * s for step, s in zip(ct.spacing_mm, reversed(size), strict=True))
        origin = tuple(
            o + step * (a + (s - 1) / 2)
            for o, step, a, s in zip(ct.origin_mm, ct.spacing_mm, reversed(start), reversed(size), strict=True)
        )
        return cls(size, start, VolumeGrid(count, spacing, origin))  # type: ignore[arg-type]

    def mean(self, volume: Float[Tensor, "z y x"]) -> Float[Tensor, "z_block y_block x_block"]:
        """Mean over each block."""
        z, y, x = (slice(a, a + n * s) for a, n, s in zip(self.start, self.grid.shape, self.size, strict=True))
        return F.avg_pool3d(volume[None, None, z, y, x].float(), self.size, stride=self.size)[0, 0]

    def share(self, mask: Tensor) -> Float[Tensor, "z_block y_block x_block"]:
        """Share of each block that is in a mask."""
        return self.mean(mask.float())

    def rows(self, patient: PortPyPatient) -> NDArray[np.int64]:
        """Row of the influence at the middle of each block, -1 for none; flat."""
        z, y, x = (
            slice(a + s // 2, a + n * s, s) for a, n, s in zip(self.start, self.grid.shape, self.size, strict=True)
        )
        return np.asarray(patient.row_of_voxel[z, y, x].flatten().numpy(), np.int64)


def _run_length(rows: Tensor) -> int:
    """Most frequent number of neighbours along the last axis that share a row of the influence."""
    change = torch.nn.functional.pad((rows[..., 1:] != rows[..., :-1]), (1, 1), value=True)
    edges = change.flatten(0, -2).nonzero()
    same_line = edges[1:, 0] == edges[:-1, 0]
    lengths = (edges[1:, 1] - edges[:-1, 1])[same_line]
    with_row = rows.flatten(0, -2)[edges[:-1][same_line].unbind(dim=1)] >= 0
    return int(lengths[with_row].mode().values)


def _on_voxels(influence: ImportedInfluence, rows: NDArray[np.int64]) -> ImportedInfluence:
    """The matrix with a row for each voxel of the case: that of its place, or an empty one."""
    there = np.flatnonzero(rows >= 0)
    picked = influence.matrix[rows[there]]
    lengths = np.zeros(len(rows), np.int64)
    lengths[there] = np.diff(picked.indptr)
    parts = (picked.data, picked.indices, np.concatenate(([0], np.cumsum(lengths))))
    matrix = type(influence.matrix)(parts, shape=(len(rows), influence.matrix.shape[1]))
    return ImportedInfluence(matrix, influence.columns, influence.gantry_deg)
