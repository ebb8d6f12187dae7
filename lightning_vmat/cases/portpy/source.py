"""A PortPy patient as a case: an arc over its gantry angles, its dose voxels and its dose influence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_vmat.cases.portpy.arc import arc_of_beams, widened
from lightning_vmat.cases.portpy.blocks import Blocks, on_voxels
from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.cases.portpy.patient import read_portpy
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import load_machine

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
"""PortPy's name -> ours; others stay. Femurs are contoured as a whole and judged as femoral heads."""
GY_PER_MU = 0.01  # the matrices are about Gy per 100 MU, not calibrated


@dataclass(frozen=True)
class PortPySource:
    """The folder of a PortPy patient.

    Args:
        folder: folder of the patient.
        size: name of a size, for the voxel sample only; beams, beamlets and voxels are the patient's own.
        protocol: shipped protocol or path of a YAML file: target, prescription and fractions.
        full: the full matrices instead of the thresholded ones.
    """

    folder: Path
    size: str
    protocol: str
    full: bool = False

    @property
    def name(self) -> str:
        """Name of the patient's folder."""
        return self.folder.name

    def load(self) -> SourceCase:
        """Read the case with its dose influence."""
        treatment = load_protocol(self.protocol)
        beam_ids, arc = arc_of_beams(PortPyFolder(self.folder))
        patient = read_portpy(self.folder, beam_ids=beam_ids, full=self.full)
        machine = load_machine(MACHINE)
        beamlets = widened(patient.influence.columns.smallest_grid(), machine, str(self.folder))
        blocks = Blocks.of(patient)
        masks = {NAMES.get(name, name): blocks.mask(mask.numpy()) for name, mask in patient.structures.items()}
        case = Case(
            case_id=self.name,
            source="portpy",
            grid=blocks.grid,
            hu=torch.from_numpy(blocks.mean(patient.hu.numpy())).clamp(-1024.0, 3071.0).round(),
            structures={name: torch.from_numpy(mask) for name, mask in masks.items()},
            prescription_gy=dict(treatment.prescription_gy),
            fractions=treatment.fractions,
            isocentre_mm=patient.isocentre_mm,
            arcs=(arc,),
            beamlets=beamlets,
            machine_name=MACHINE,
            protocol=self.protocol,
        )
        influence = on_voxels(patient.influence, blocks.rows(patient))
        stored = influence.stored(beamlets=beamlets, gy_scale=treatment.fractions * GY_PER_MU)
        return SourceCase(case, influence=stored)


def patient_folders(source: Path) -> list[Path]:
    """The folder itself if it is a patient's, else the patient folders in it, in the order of their numbers.

    Raises:
        ValueError: no patients.
    """
    if (source / "CT_MetaData.json").is_file():
        return [source]
    folders = sorted({path.parent for path in source.glob("*/CT_MetaData.json")})
    if not folders:
        raise ValueError(f"{source}: no patients, expected folders with CT_MetaData.json as PortPy has them")
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name))
