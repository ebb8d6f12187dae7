"""Brings CT and structures of a patient to the planning grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.cases.coarsening import block_mean, coarse_grid, coarse_mask, coarsening, crop_box
from lightning_vmat.cases.dicom.automatic_body import THRESHOLD_HU, automatic_body
from lightning_vmat.cases.dicom.contour_volume import roi_mask
from lightning_vmat.cases.dicom.ct import CtSeries
from lightning_vmat.cases.dicom.densities import dense_ct
from lightning_vmat.cases.dicom.roi_names import Match, RoiNames
from lightning_vmat.cases.dicom.roi_report import LeftOut, RoiReport, StructureSource
from lightning_vmat.cases.dicom.rtstruct import Roi, StructureSet
from lightning_vmat.objectives.derived import make_derived, sources_of
from lightning_vmat.objectives.protocol import Protocol
from lightning_vmat.plan.case import BODY
from lightning_vmat.plan.volume import VolumeGrid

AUTOMATIC = f"automatic: CT above {THRESHOLD_HU:g} HU, largest part, filled"


@dataclass(frozen=True)
class StructureVolumes:
    """CT and structures of a patient on the planning grid.

    Args:
        grid: grid of the planning voxels.
        hu: CT numbers `[z, y, x]`, HU, with assigned densities; air outside body, supports and bolus.
        masks: masks by structure.
        report: which ROI became which structure.
    """

    grid: VolumeGrid
    hu: NDArray[np.float32]
    masks: dict[str, Bool[Tensor, "z y x"]]
    report: RoiReport


def structure_volumes(
    ct: CtSeries, structures: StructureSet, names: RoiNames, protocol: Protocol, voxel_mm: float
) -> StructureVolumes:
    """Choose ROIs, make masks on the CT's voxels, and bring everything to the planning grid.

    Args:
        ct: the scan.
        structures: the structure set.
        names: mapping of ROI names to structures.
        protocol: protocol that gives targets, structures and derived structures.
        voxel_mm: approximate size of a planning voxel.

    Raises:
        ValueError: ROIs that are missing, ambiguous, in other coordinates, or whose masks differ from their contours.
    """
    matches = names.assign(
        structures.rois,
        protocol.prescription_gy,
        others=(*protocol.structure_names, *sources_of(protocol.derived)),
        derived=[one.name for one in protocol.derived],
    )
    supports = names.supports([roi for roi in structures.rois if id(roi) not in _ids(matches)])
    assigned = [roi for roi in structures.rois if roi.density is not None]
    for roi in (*(match.roi for match in matches.values()), *supports, *assigned):
        check_roi_frame(roi, structures, ct.frame_of_reference_uid)
    fine, sources = _drawn(ct, matches, protocol)
    made = make_derived(protocol.derived, fine, ct.grid)
    for one in protocol.derived:
        if one.name in made:
            sources.append(_source(one.name, "", str(one), made[one.name], ct.grid))
    fine |= made
    _check_made_targets(made, fine, protocol)
    outline = matches[BODY].roi if BODY in matches else None
    dense = dense_ct(ct, fine[BODY], outline, supports, assigned)
    block = coarsening(ct.grid, voxel_mm)
    targets = [fine[name] for name in protocol.prescription_gy if name in fine]
    box = crop_box(np.any([dense.kept, *targets], axis=0), block)
    masks = {name: torch.from_numpy(coarse_mask(mask, box, block)) for name, mask in fine.items()}
    kept = {name: mask for name, mask in masks.items() if bool(mask.any()) or name in protocol.prescription_gy}
    report = RoiReport(
        tuple(source for source in sources if source.structure in kept),
        _left_out(structures, names, matches, supports, set(masks) - set(kept), protocol, ct.frame_of_reference_uid),
        dense.densities,
    )
    return StructureVolumes(coarse_grid(ct.grid, box, block), block_mean(dense.hu, box, block), kept, report)


def check_roi_frame(roi: Roi, structures: StructureSet, ct_frame_uid: str) -> None:
    """Raise a ValueError if a ROI has another frame of reference than the CT, or an unclear one."""
    if roi.frame_of_reference_uid and ct_frame_uid and roi.frame_of_reference_uid != ct_frame_uid:
        raise ValueError(f"ROI {roi.shown} is in another frame of reference than the CT, expected the CT's")
    known = roi.frame_of_reference_uid or ("" if len(structures.frame_uids) > 1 else ct_frame_uid or "any")
    if not known or (not ct_frame_uid and len(structures.frame_uids) > 1):
        count = len(structures.frame_uids)
        raise ValueError(f"ROI {roi.shown}: {count} frames of reference in the file, expected a reference to the CT's")


def _drawn(
    ct: CtSeries, matches: Mapping[str, Match], protocol: Protocol
) -> tuple[dict[str, NDArray[np.bool_]], list[StructureSource]]:
    """Masks of the drawn structures, and of an automatic body if none was drawn."""
    fine, sources = {}, []
    if BODY not in matches and BODY not in {one.name for one in protocol.derived}:
        fine[BODY] = automatic_body(ct.hu, ct.grid)
        sources.append(_source(BODY, "", AUTOMATIC, fine[BODY], ct.grid))
    for name, match in matches.items():
        if name in protocol.prescription_gy:
            _check_inside(name, match.roi, ct.grid)
        try:
            fine[name], contours_cc = roi_mask(match.roi, ct.grid)
        except ValueError as error:
            raise ValueError(f"ROI {match.roi.shown} for {name}: {error}") from error
        if name == BODY and not fine[name].any():
            raise ValueError(f"ROI {match.roi.shown} for {BODY} lies outside the CT, expected inside")
        sources.append(StructureSource(name, match.roi.name, match.how, contours_cc))
    return fine, sources


def _source(name: str, roi: str, how: str, mask: NDArray[np.bool_], grid: VolumeGrid) -> StructureSource:
    return StructureSource(name, roi, how, int(mask.sum()) * grid.voxel_volume_cc)


def _check_inside(name: str, roi: Roi, grid: VolumeGrid) -> None:
    """Raise if a target extends beyond the CT."""
    points = torch.from_numpy(np.concatenate(roi.contours)).float()
    low, high = grid.index_coordinates(torch.stack((points.amin(dim=0), points.amax(dim=0))))
    if bool((low < -1).any()) or bool((high > torch.tensor(grid.shape).flip(0)).any()):
        raise ValueError(f"ROI {roi.shown} for {name} reaches beyond the CT, expected all of the target on it")


def _check_made_targets(
    made: Mapping[str, NDArray[np.bool_]], fine: Mapping[str, NDArray[np.bool_]], protocol: Protocol
) -> None:
    """Raise if a derived target is missing, or cut off at the border of the CT."""
    for one in protocol.derived:
        if one.name not in protocol.prescription_gy and one.name != BODY:
            continue
        if one.name not in made:
            missing = [name for name in one.sources if name not in fine]
            raise ValueError(f"{one.name} is made by {one}, and there is no ROI for {', '.join(missing)}")
        mask = made[one.name]
        faces = [mask.take(at, axis=axis).any() for axis in range(3) for at in (0, -1)]
        if one.name != BODY and any(faces):
            raise ValueError(f"{one.name}, made by {one}, reaches the border of the CT, expected all of it on the CT")


def _left_out(
    structures: StructureSet,
    names: RoiNames,
    matches: Mapping[str, Match],
    supports: list[Roi],
    lost: set[str],
    protocol: Protocol,
    ct_frame_uid: str,
) -> tuple[LeftOut, ...]:
    """ROIs that were left out, each with the reason."""
    used = {id(match.roi): name for name, match in matches.items() if name not in lost}
    made = {id(roi) for one in protocol.derived for roi in structures.rois if roi.name == one.name}
    entries = []
    for roi in structures.rois:
        if id(roi) in used:
            continue
        if id(roi) in _ids(matches):
            reason = "no voxel of the planning grid"
        elif id(roi) in made:
            reason = "the protocol makes this structure"
        elif id(roi) in {id(one) for one in supports}:
            reason = "support or bolus: attenuates, no structure"
        elif roi.frame_of_reference_uid not in ("", ct_frame_uid) and ct_frame_uid:
            reason = "another frame of reference than the CT"
        else:
            reason = "optimization structure" if names.steers(roi) else "no structure by this name or type"
        entries.append(LeftOut(roi.name, reason))
    return (*entries, *(LeftOut(name, "no closed contour") for name in structures.empty))


def _ids(matches: Mapping[str, Match]) -> set[int]:
    return {id(match.roi) for match in matches.values()}
