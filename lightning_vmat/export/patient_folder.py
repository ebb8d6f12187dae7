"""Writes a case as a folder of DICOM files: CT series, RTSTRUCT, and RTPLAN and RTDOSE of a plan."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.source import Source
from lightning_vmat.data.reference_plans import reference_plan
from lightning_vmat.export.ct_series import write_ct_series
from lightning_vmat.export.dicom_objects import new_uid
from lightning_vmat.export.rtdose import Bits, write_rtdose
from lightning_vmat.export.rtplan import write_rtplan
from lightning_vmat.export.rtstruct import write_rtstruct
from lightning_vmat.files.atomic import atomic_folder
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.body_dose import BodyDose

RTSTRUCT_FILE, RTPLAN_FILE, RTDOSE_FILE = "RTSTRUCT.dcm", "RTPLAN.dcm", "RTDOSE.dcm"


def phantom_link(case: Case) -> PatientLink:
    """DICOM attributes of a patient named like the phantom, in a new study."""
    now = datetime.now(UTC)
    return PatientLink(
        study_uid=new_uid(),
        frame_of_reference_uid=new_uid(),
        structure_set_uid=new_uid(),
        patient_name=f"{case.case_id}^Phantom",
        patient_id=case.case_id,
        sex="M",
        study_id="1",
        study_date=now.strftime("%Y%m%d"),
        study_time=now.strftime("%H%M%S"),
    )


def write_patient(
    folder: Path, case: Case, plan: Plan | None = None, dose_gy: Float[Tensor, "z y x"] | None = None
) -> None:
    """Write a DICOM folder as a planning system exports it, whole or not at all.

    Args:
        folder: folder to write; it must not exist, or be empty.
        case: CT and structures.
        plan: plan to export; None for none.
        dose_gy: dose of that plan, whole course, Gy.

    Raises:
        ValueError: the folder exists already, or the plan breaks limits of the machine.
    """
    link = phantom_link(case)
    with atomic_folder(folder) as draft:
        series_uid, slice_uids = write_ct_series(draft, case, link)
        write_rtstruct(draft / RTSTRUCT_FILE, case, link, series_uid, slice_uids)
        if plan is not None:
            write_plan_and_dose(draft, case, plan, dose_gy, link)


def export_source(source: Source, out: Path, plan: bool) -> str:
    """Write the case of a source as DICOM, with a reference plan if requested, unless it exists. Returns its name."""
    folder = out / source.name
    if not (folder / RTSTRUCT_FILE).is_file():
        case = source.load().case
        if plan:
            reference, _ = reference_plan(case, source.size)
            write_patient(folder, case, reference, plan_dose(case, reference))
        else:
            write_patient(folder, case)
    return source.name


def plan_dose(case: Case, plan: Plan) -> Float[Tensor, "z y x"]:
    """Delivered dose of a plan in the body, whole course, Gy."""
    return case.body_volume(BodyDose(case).of_plan(plan))


def write_plan_and_dose(
    folder: Path, case: Case, plan: Plan, dose_gy: Float[Tensor, "z y x"] | None, link: PatientLink, bits: Bits = 16
) -> None:
    """Write `RTPLAN.dcm`, and `RTDOSE.dcm` that refers to it.

    Raises:
        ValueError: a plan that breaks limits of the machine.
    """
    plan_uid = write_rtplan(folder / RTPLAN_FILE, case, plan, link)
    if dose_gy is not None:
        write_rtdose(folder / RTDOSE_FILE, dose_gy, case.grid, link, plan_uid, bits)
