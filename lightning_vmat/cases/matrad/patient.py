"""A matRad or pyRadPlan patient as a case: CT, structures, and its objectives as a protocol of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.case_files import check_beams
from lightning_vmat.cases.dicom.beams import default_beams
from lightning_vmat.cases.dicom.files import naming
from lightning_vmat.cases.dicom.patient_folders import NAME_LETTERS
from lightning_vmat.cases.dicom.roi_names import RoiNames, load_roi_names
from lightning_vmat.cases.matrad.ct import read_ct
from lightning_vmat.cases.matrad.mat_files import read_mat
from lightning_vmat.cases.matrad.own_protocol import own_protocol
from lightning_vmat.cases.matrad.settings import read_fractions, read_isocentre
from lightning_vmat.cases.matrad.structures import Voi, body_voi, read_vois, structure_names
from lightning_vmat.cases.matrad.volumes import Volumes, names_for_protocol, planning_volumes
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.objectives.derived import make_derived
from lightning_vmat.objectives.protocol import Protocol, load_protocol
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.machine import DEFAULT_MACHINE, load_machine
from lightning_vmat.plan.volume import VolumeGrid

FRACTIONS = 30  # matRad's own where nothing else is said


@dataclass(frozen=True)
class MatradPatient:
    """What a matRad file holds.

    Args:
        case: ready to plan.
        notes: a line for everything that was left out or means something else here.
    """

    case: Case
    notes: tuple[str, ...]


def case_name(path: Path) -> str:
    """Name of a file's case."""
    return re.sub(NAME_LETTERS, "_", path.stem).strip("_") or "patient"


def read_patient(
    path: Path,
    protocol: str | None = None,
    *,
    size: str = "base",
    fractions: int = FRACTIONS,
    use_isocentre: bool = True,
    machine: str = DEFAULT_MACHINE,
    roi_names: RoiNames | None = None,
) -> MatradPatient:
    """Read `ct` and `cst`, and `pln` and `stf` where they are there; `dij` is left, as dose comes from our own model.

    Args:
        path: the `.mat` file, of any version.
        protocol: shipped protocol or YAML in place of the file's objectives; its structures are found by their names.
        size: name of a size; it gives voxels, control points and beamlets.
        fractions: number of fractions where neither the file nor a protocol says it.
        use_isocentre: take the isocentre of `pln` or `stf`; else it is the centre of the targets.
        machine: shipped machine or path of a YAML.
        roi_names: how structures are found for a protocol; by the usual names if None.

    Raises:
        ValueError: one line that names the file, the field and what is wrong with it.

    Reference: Wieser et al., Medical Physics 44:2556 (2017).
    """
    path, cut = Path(path), get_size(size)
    stored = read_mat(path, ("ct", "cst"), ("pln",))
    pln, names = stored.get("pln"), roi_names or load_roi_names()
    with naming(path):
        ct = read_ct(stored["ct"])
        vois = read_vois(stored["cst"], ct.grid.shape)
        if protocol is None:
            rows = structure_names(vois, body_voi(vois, names))
            volumes = planning_volumes(ct, vois, rows, cut.voxel_mm)
            chosen, notes = _own(path, vois, rows, volumes, read_fractions(pln, fractions))
            treatment = load_protocol(chosen)
        else:
            chosen, notes, treatment = protocol, (), load_protocol(protocol)
            volumes = planning_volumes(ct, vois, names_for_protocol(vois, treatment, names), cut.voxel_mm)
        masks = volumes.masks | make_derived(treatment.derived, volumes.masks, volumes.grid)
        prescription_gy, points_mm = _targets(treatment, masks, volumes.grid)
        isocentre_mm = None
        if use_isocentre:
            stf = read_mat(path, (), ("stf",)).get("stf")
            isocentre_mm = read_isocentre(pln, stf, ct.grid, points_mm.numpy())
        beams = default_beams(points_mm, ct.patient_position, load_machine(machine), cut, path, isocentre_mm)
        case = Case(
            case_id=case_name(path),
            source="matrad",
            grid=volumes.grid,
            hu=torch.from_numpy(volumes.hu),
            structures={name: torch.from_numpy(mask) for name, mask in masks.items()},
            prescription_gy=prescription_gy,
            fractions=treatment.fractions,
            isocentre_mm=beams.isocentre_mm,
            arcs=beams.arcs,
            beamlets=beams.beamlets,
            machine_name=machine,
            protocol=chosen,
        )
        check_beams(case)
    return MatradPatient(case, (*volumes.notes, *notes))


def _own(
    path: Path, vois: Sequence[Voi], rows: Mapping[int, str], volumes: Volumes, treated: tuple[int, float]
) -> tuple[str, tuple[str, ...]]:
    """The protocol of the file's objectives, and what it leaves out."""
    own = own_protocol(path.stem, vois, rows, volumes.masks, fractions=treated[0], dose_factor=treated[1])
    return own.text, own.notes


def _targets(
    protocol: Protocol, masks: Mapping[str, Any], grid: VolumeGrid
) -> tuple[dict[str, float], Float[Tensor, "voxel 3"]]:
    """The prescriptions of the targets that are there, and the targets' voxels."""
    there = {name: dose for name, dose in protocol.prescription_gy.items() if name in masks and masks[name].any()}
    if not there:
        raise ValueError(f"{' and '.join(protocol.prescription_gy)}: no voxel of the planning grid, expected a target")
    union = np.any([masks[name] for name in there], axis=0)
    return there, grid.centres_mm(torch.from_numpy(np.flatnonzero(union)))
