"""`vmat check`: the accuracy of dose, and plans against what their RTPLANs deliver."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning_vmat.commands.prepare import SizeName


def dose(folder: Path, *, json: Path | None = None) -> None:
    """Compare dose with an independent engine and with a 6 MV beam in water; exit status 1 for figures out of bounds.

    Args:
        folder: Folder of reference doses: `box.npz`, `tg119.npz` and the machine file `photons_Generic.mat`.
        json: File for the figures.

    Raises:
        ValueError: a file that is missing or broken.
    """
    from lightning_vmat.benchmarks.dose_checks import check_dose

    check_dose(folder, json)


def delivery(
    plan: Path,
    *,
    case: Path | None = None,
    split: Literal["train", "validation", "test"] | None = None,
    cases: int | None = None,
    json: Path | None = None,
    step_deg: float = 0.5,
    protocol: str | None = None,
    roi_names: Path | None = None,
    size: SizeName | None = None,
    use_plan: bool = True,
    show_identifiers: bool = False,
) -> None:
    """Recompute the dose of RTPLANs with gantry and leaves in motion; exit status 1 if it differs from the plan's.

    Tolerances: objective 1 %, gamma 1 %/1 mm in 99.5 % of the voxels above a tenth of the highest dose, D98, D95 and
    D2 of each target 0.1 Gy.

    Args:
        plan: Results of `vmat plan`, a `plan.safetensors` (its RTPLAN is written for the check), or an RTPLAN, which is
            compared with the RTDOSE beside it that refers to it, else with the dose that a planner would compute. For
            many plans: a folder of such results, a cohort with plans, or the name of a shipped cohort.
        case: Case of the plan, or a patient's DICOM folder. The options from `protocol` on are for DICOM only. Results
            of `vmat plan` are checked on the machine, arcs and isocentre that they were made for. For a folder of
            results: the cohort of their cases. Not needed for cases that hold their plans.
        split: For many plans: only the cases of this split of the cohort.
        cases: For many plans: number of cases. Default: all.
        json: File for the figures. With many plans, until it is complete, `.partial` beside it holds the figures so
            far; the same command then continues.
        step_deg: Largest gantry angle, in degrees, over which the dose is computed at one angle.
        protocol: Shipped protocol or YAML file: targets, prescription and fractions. Default: `prostate_60gy_20fx`.
        roi_names: YAML file that maps ROI names to structures. Default: the shipped one, which knows usual names.
        size: Resolution: voxels, control points and beamlets. Default: `base`.
        use_plan: Take arcs and isocentre from the RTPLAN in the DICOM folder, if there is one.
        show_identifiers: Show the Patient ID.

    Raises:
        ValueError: no such plan or case, a plan that does not fit the case, or an option that does not apply.
    """
    from lightning_vmat.benchmarks import delivery_checks as checking
    from lightning_vmat.cases.patient import DicomOptions, open_patient

    if not 0 < step_deg <= 10:
        raise ValueError(f"step_deg {step_deg}: expected more than 0 and at most 10")
    if cases is not None and cases < 1:
        raise ValueError(f"cases {cases}: expected at least 1")
    dicom = DicomOptions(protocol, roi_names, size, use_plan, show_identifiers)
    if checking.is_one_plan(plan):
        for name, value in (("split", split), ("cases", cases)):
            if value is not None:
                raise ValueError(f"{name} {value}: expected with many plans only, {plan} is one plan")
        opened = open_patient(case or checking.own_case(plan), dicom, machine=checking.machine_of(plan))
        checking.check_one(plan, opened, step_deg, json)
    else:
        dicom.check_unused("many plans")
        checking.check_many(plan, case, split, cases, step_deg, json)
