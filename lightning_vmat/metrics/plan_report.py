"""Dose metrics of a whole plan."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.metrics.conformity import homogeneity_index, paddick_index
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.plan.case import Case

REFERENCE_ISODOSE = 0.95  # of the prescription, for conformity (ICRU 83)


def structure_dvhs(case: Case, dose_gy: Float[Tensor, " voxel"]) -> dict[str, Dvh]:
    """Returns the dose-volume histogram of each structure that is not empty.

    Args:
        case: the case.
        dose_gy: dose on `case.body_index`.

    Raises:
        ValueError: dose on another number of voxels.
    """
    index = case.body_index.cpu()
    if len(dose_gy) != len(index):
        raise ValueError(f"case {case.case_id}: dose on {len(dose_gy)} voxels, expected the body's {len(index)}")
    dose_gy, dvhs = dose_gy.detach().cpu(), {}
    for name, mask in case.structures.items():
        dose = dose_gy[mask.cpu().flatten()[index]]
        if len(dose):
            dvhs[name] = Dvh(dose, torch.full_like(dose, case.grid.voxel_volume_cc))
    return dvhs


def summarise_structures(case: Case, dose_gy: Float[Tensor, " voxel"]) -> dict[str, dict[str, float]]:
    """Returns a summary of each structure's dose.

    It holds `d95_gy`, `d98_gy`, `d2_gy`, `d50_gy`, `mean_gy` and `max_gy`; for targets also `hi` and `paddick`. The
    Paddick index of a target compares the 95 % isodose of its prescription with the union of this target and all
    targets of higher prescription, so that nested targets can reach 1.

    Args:
        case: the case.
        dose_gy: dose on `case.body_index`.
    """
    dvhs = structure_dvhs(case, dose_gy)
    report = {name: dvh.summary() for name, dvh in dvhs.items()}
    index, dose_gy = case.body_index.cpu(), dose_gy.detach().cpu()
    within = torch.zeros(len(index), dtype=torch.bool)
    for name in case.target_names:
        within = within | case.structures[name].cpu().flatten()[index]
        report[name]["hi"] = homogeneity_index(dvhs[name])
        report[name]["paddick"] = paddick_index(dose_gy, within, REFERENCE_ISODOSE * case.prescription_gy[name])
    return report
