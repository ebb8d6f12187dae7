"""`vmat plan`: one patient's plan with its dose, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lightning_vmat.commands.prepare import SizeName


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
    voxels: int = 30_000,
    evaluations: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    protocol: str = "prostate_60gy_20fx",
    roi_names: Path | None = None,
    size: SizeName = "base",
    use_plan: bool = True,
    show_identifiers: bool = False,
    dose_bits: Literal[16, 32] = 16,
    reader: str | None = None,
) -> None:
    """Plan one case: plan.safetensors, dose.nii.gz, metrics.json, report.html, and RTPLAN and RTDOSE if it was DICOM.

    Args:
        case: folder of the case, or a patient's DICOM folder, to which the options from `protocol` on apply.
        out: folder for the results; nothing of it is written unless everything is.
        planner: `reference` optimises slowly and well, `conventional` quickly and without learning, `fluence` stops at
            a fluence that no linac delivers; `learned`, `generator`, `teacher` and `regression` use a trained run of
            that recipe, `recipe` that of any recipe. Behind a name, `+lbfgs`, `+surrogate`, `+adam`, `+accelerated` or
            `+learned` gives the fluence to that optimizer, `@50` allows 50 dose evaluations in all: `fluence+adam`,
            `generator+lbfgs@30`. A planner or optimizer of your own: its import path, `my_package.module.Name`.
        run: run directory, checkpoint or weights of that recipe; without it the weights in the package, which know
            prostate patients of base size (the learned optimizer alone, `fluence+learned`, takes any).
        start: RTPLAN of arcs to start from: `reference` polishes its apertures, `fluence` the fluence that it delivers.
            A DICOM folder is then planned with its arcs and isocentre; a case must have these already.
        compare: results of an earlier `vmat plan` or an RTPLAN of this patient to show beside the new plan; without it
            that is the plan to start from, or the clinical dose, where there is one.
        wish: `--wish Rectum=4 --wish homogeneity=0.5` multiplies the weights of the protocol's objectives for these; a
            name is a structure, `Body` for conformity, `FemoralHeads` for both, or `homogeneity` for the overdose of
            the targets. Other wishes of the case stay.
        machine: shipped machine or YAML to plan for; a case has its own, and a DICOM folder `truebeam_millennium120`.
        jaw_margin_mm: least distance of the jaws, which do not move, from the targets' voxels in the beam's-eye view;
            with `null`, or a dose influence of the case's own, they stand where the case has them, else at the edges
            of the field. Those of a plan to start from stay, but at a boundary of leaves and beamlets.
        gantry_slowdown: `2` allows a sector twice the time of the gantry's full speed where its leaves need it, and
            delivery takes longer. The case's own if not given; 1 unless it was prepared otherwise.
        voxels: size of the voxel sample on which the plan is optimised.
        evaluations: dose evaluations of a quick planner in all, from the start to the deliverable plan; 20 if not
            given. Not for `reference` and `fluence`, which have their own.
        seed: of the voxel sample and of a generator's noise.
        overwrite: replace the results of an earlier run in `out`.
        protocol: shipped protocol or YAML; gives targets, prescription and fractions.
        roi_names: YAML that says which ROI is which structure; the shipped one knows usual names.
        size: voxels, control points and beamlets.
        use_plan: take arcs and isocentre from an RTPLAN that is there.
        show_identifiers: show the Patient ID in the report and in what is printed.
        dose_bits: of a pixel of the RTDOSE; some readers take 16 only.
        reader: import path of a function of your own, `my_package.module.function`, that reads CASE.

    Raises:
        ValueError: no such case or run, a run or another setting that does not fit the planner, or results that are
            there already.
    """
    from lightning_vmat.api.planners import planner as make_planner
    from lightning_vmat.cases.patient import open_patient
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
        seed=seed,
        progress=True,
    )
    opened = open_patient(case, protocol, roi_names, size, use_plan, show_identifiers, start, machine, reader)
    if opened.start is not None:
        member = member.starting_from(opened.start)
    opened = opened._replace(case=member.prepared(opened.case))
    compared = compared_plan(compare, opened, start)
    with atomic_folder(out, replace=overwrite) as draft:
        measured = write_results(draft, opened, member.plan(opened.case), compared, dose_bits)
    print(_summary(measured))
    for note in opened.rois.notes() if opened.rois else []:
        print(f"  {note}")
    print(f"report: {out / REPORT_FILE}")


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
            *([f"wishes: {wishes_text(measured['wishes'])}"] if measured["wishes"] else []),
            *lines,
            *([f"not in the case, so left out: {', '.join(skipped)}"] if skipped else []),
            f"{delivery}{measured['dose_evaluations']} dose evaluations; {stages}",
        ]
    )
