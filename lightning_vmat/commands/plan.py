"""`vmat plan`: one patient's plan with its dose, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning_vmat.commands.prepare import SizeName
from lightning_vmat.commands.terminal import linked


def plan(
    case: Path,
    *,
    out: Path,
    planner: str = "reference",
    run: Path | None = None,
    start: Path | None = None,
    compare: Path | None = None,
    wish: dict[str, float] | None = None,
    machine: str | None = None,
    jaw_margin_mm: float | None = 8.0,
    gantry_slowdown: float | None = None,
    voxels: int = 40_000,
    evaluations: int | None = None,
    when_unlike: Literal["reference", "conventional"] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    dose_bits: Literal[16, 32] = 16,
    reader: str | None = None,
    protocol: str | None = None,
    roi_names: Path | None = None,
    size: SizeName | None = None,
    use_plan: bool = True,
    show_identifiers: bool = False,
) -> None:
    """Plan one case: leaf positions, monitor units, dose, metrics and report; for DICOM also RTPLAN and RTDOSE.

    Args:
        case: Folder of a case, or a patient's DICOM folder. The options from `protocol` on are for DICOM only.
        out: Folder for the results; it appears whole or not at all.
        planner: `reference` is slow and good; `conventional` is quick and uses no learning; `fluence` ends in an ideal
            fluence that no linac delivers; `learned`, `generator`, `teacher` and `regression` use a trained run of that
            recipe, `recipe` a run of any recipe. After the name, `+lbfgs`, `+surrogate`, `+adam`, `+accelerated`
            or `+learned` chooses the fluence optimizer, and `@50` limits the plan to 50 dose evaluations:
            `fluence+adam`, `generator+lbfgs@30`. A planner or optimizer of your own: its import path,
            `my_package.module.Name`.
        run: Run directory, checkpoint or weights of that recipe. Default: the weights in the package that know most of
            the case's structures (those of the optimizer in `fluence+learned` fit any case).
        start: RTPLAN of arcs to start from: `reference` improves its apertures, `fluence` the fluence that it delivers.
            A DICOM folder is then planned with the arcs and isocentre of the RTPLAN; a case must have the same ones and
            as many fractions.
        compare: Results of an earlier `vmat plan`, or an RTPLAN of this patient, to show beside the new plan. Default:
            the plan to start from, else the clinical dose, if there is one.
        wish: `--wish Rectum=4 --wish homogeneity=0.5` multiplies the weights of the protocol's objectives for a
            structure. `Body` stands for conformity, `FemoralHeads` for both heads, `homogeneity` for the overdose of
            the targets. Other wishes of the case stay.
        machine: Shipped machine or YAML file. Default: the machine of the case; for DICOM `truebeam_millennium120`.
        jaw_margin_mm: Least distance, in mm, between the fixed jaws and the targets' voxels in the beam's-eye view.
            With `null`, or if the case has its own dose influence, the jaws are those of the case, else at the edges of
            the field. The jaws of a plan to start from stay, moved to a boundary of leaves and beamlets.
        gantry_slowdown: `2` allows a sector twice the time of the gantry's full speed where its leaves need it.
            Delivery takes longer. Default: that of the case, which is 1 unless it was prepared otherwise.
        voxels: Size of the voxel sample on which the plan is optimised.
        evaluations: Dose evaluations from the start to the deliverable plan, for quick planners. Default: 20.
            `reference` and `fluence` have their own number.
        when_unlike: Planner for a case that is unlike those on which the network was trained (unlikeness above 1: one
            in a hundred of those). Default: it is planned all the same, and the output says so.
        seed: Seed for the voxel sample and the generator's noise.
        overwrite: Replace the results of an earlier run in `out`.
        dose_bits: Bits of a pixel of the RTDOSE; some readers accept 16 only.
        reader: Registered name or import path, `my_package.module.function`, of a function of your own that reads CASE.
        protocol: Shipped protocol or YAML file: targets, prescription and fractions. Default: `prostate_60gy_20fx`.
        roi_names: YAML file that maps ROI names to structures. Default: the shipped one, which knows usual names.
        size: Resolution: voxels, control points and beamlets. Default: `base`.
        use_plan: Take arcs and isocentre from the RTPLAN in the folder, if there is one.
        show_identifiers: Show the Patient ID in the report and in the printed text.

    Raises:
        ValueError: no such case or run, a run or another setting that does not fit the planner, or results that are
            there already.
    """
    from lightning_vmat.api.planners import planner as make_planner
    from lightning_vmat.cases.patient import DicomOptions, open_patient
    from lightning_vmat.export.compared import compared_plan
    from lightning_vmat.export.plan_results import REPORT_FILE, write_results
    from lightning_vmat.files.atomic import atomic_folder

    member = make_planner(
        planner,
        run=run,
        start=start,
        jaw_margin_mm=jaw_margin_mm,
        wishes=wish,
        gantry_slowdown=gantry_slowdown,
        voxels=voxels,
        evaluations=evaluations,
        when_unlike=when_unlike,
        seed=seed,
        progress=True,
    )
    dicom = DicomOptions(protocol, roi_names, size, use_plan, show_identifiers)
    opened = open_patient(case, dicom, start, machine, reader)
    if opened.start is not None:
        member = member.starting_from(opened.start)
    opened = opened._replace(case=member.prepared(opened.case))
    compared = compared_plan(compare, opened, start)
    with atomic_folder(out, replace=overwrite) as draft:
        measured = write_results(draft, opened, member.plan(opened.case), compared, dose_bits)
    print(_summary(measured))
    for note in opened.rois.notes() if opened.rois else []:
        print(f"  {note}")
    print(f"report: {linked(out / REPORT_FILE)}")


def _unlike_note(measured: dict[str, Any]) -> list[str]:
    """A line on a case that is unlike those of the network's training; none for other cases."""
    unlikeness = measured["unlikeness"]
    if unlikeness is None or unlikeness <= 1:
        return []
    return [
        f"unlike the cases of the training (unlikeness {unlikeness:.2g}, expected 1 or less): {measured['planner']}"
    ]


def _summary(measured: dict[str, Any]) -> str:
    """Goals and stage times on a few lines."""
    from lightning_vmat.plan.wishes import wishes_text

    goals, seconds, skipped = measured["goals"], measured["seconds"], measured["skipped_structures"]
    lines = [
        f"  {'met ' if goal['met'] else 'MISS'}  {goal['structure']} {goal['measure']} {goal['value']:.3g} "
        f"({'>=' if goal['at_least'] else '<='} {goal['limit']:.3g})"
        for goal in goals
    ]
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    delivery = "" if measured["delivery_s"] is None else f"delivery takes {measured['delivery_s']:.0f} s; "
    return "\n".join(
        [
            f"case {measured['case']}: {measured['goals_met']} of {len(goals)} clinical goals met, "
            f"machine violations: {measured['machine_violations']}",
            *_unlike_note(measured),
            *([f"wishes: {wishes_text(measured['wishes'])}"] if measured["wishes"] else []),
            *lines,
            *([f"not in the case, so left out: {', '.join(skipped)}"] if skipped else []),
            f"{delivery}{measured['dose_evaluations']} dose evaluations; {stages}",
        ]
    )
