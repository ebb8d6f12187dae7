"""CT and structures of a matRad patient on the planning grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.coarsening import block_mean, coarse_grid, coarse_mask, coarsening, crop_box
from lightning_vmat.cases.dicom.automatic_body import THRESHOLD_HU, automatic_body
from lightning_vmat.cases.dicom.ct import AIR_HU
from lightning_vmat.cases.dicom.roi_names import RoiNames
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.cases.matrad.ct import MatradCt
from lightning_vmat.cases.matrad.structures import Voi
from lightning_vmat.objectives.derived import sources_of
from lightning_vmat.objectives.protocol import Protocol
from lightning_vmat.plan.case import BODY
from lightning_vmat.plan.volume import VolumeGrid

ROI_TYPES = {"TARGET": "PTV", "EXTERNAL": "EXTERNAL"}  # of DICOM, by which structures of unusual names are found


@dataclass(frozen=True)
class Volumes:
    """What planning needs of a CT and its structures.

    Args:
        grid: of the planning voxels.
        hu: CT numbers `[z, y, x]`; air outside all structures, as in matRad.
        masks: by structure; none is empty.
        notes: a line for each structure that was left out.
    """

    grid: VolumeGrid
    hu: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    notes: tuple[str, ...]


def names_for_protocol(vois: Sequence[Voi], protocol: Protocol, names: RoiNames) -> dict[int, str]:
    """Structures of a protocol, by row of the structure that has their name or type.

    Raises:
        ValueError: no target among them, or two that fit one structure equally well.
    """
    rois = {voi.row: Roi(voi.name, ROI_TYPES.get(voi.kind, ""), []) for voi in vois if voi.mask.any()}
    matches = names.assign(
        list(rois.values()),
        protocol.prescription_gy,
        others=(*protocol.structure_names, *sources_of(protocol.derived)),
        derived=[one.name for one in protocol.derived],
    )
    found = {id(match.roi): name for name, match in matches.items()}
    return {row: found[id(roi)] for row, roi in rois.items() if id(roi) in found}


def planning_volumes(ct: MatradCt, vois: Sequence[Voi], names: Mapping[int, str], voxel_mm: float) -> Volumes:
    """Bring the CT and the structures that have a name to voxels of about `voxel_mm`.

    Without a structure for the body it is what the CT shows of the patient, together with all targets and organs.

    Raises:
        ValueError: no patient in the CT.
    """
    fine = {names[voi.row]: voi.mask for voi in vois if voi.row in names and voi.mask.any()}
    notes = [f"{voi.name}: left out: {_reason(voi)}" for voi in vois if names.get(voi.row) not in fine]
    if ct.scenarios > 1:
        notes.insert(0, f"ct: {ct.scenarios} scenarios, of which the first is read")
    if BODY not in fine:
        shown = [voi.mask for voi in vois if voi.kind in ("TARGET", "OAR")]
        fine[BODY] = reduce(np.logical_or, shown, automatic_body(ct.hu, ct.grid))
        notes.append(f"{BODY}: no outline in cst: CT above {THRESHOLD_HU:g} HU, with all targets and organs")
    inside = reduce(np.logical_or, (voi.mask for voi in vois), fine[BODY])
    block = coarsening(ct.grid, voxel_mm)
    box = crop_box(inside, block)
    masks = {name: coarse_mask(mask, box, block) for name, mask in fine.items()}
    notes += [f"{name}: left out: no voxel of the planning grid" for name, mask in masks.items() if not mask.any()]
    hu = block_mean(np.where(inside, ct.hu, np.float32(AIR_HU)), box, block)
    kept = {name: mask for name, mask in masks.items() if mask.any()}
    return Volumes(coarse_grid(ct.grid, box, block), hu, kept, tuple(notes))


def _reason(voi: Voi) -> str:
    return "no structure of the protocol has its name or type" if voi.mask.any() else "no voxels"
