"""`vmat plan`: one patient's plan with its dose, metrics and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_vmat.commands.prepare import SizeName

if TYPE_CHECKING:
    from lightning_vmat.l2o.optimizer import Optimizer
    from lightning_vmat.planning.planner import Planner

LEARNED = "learned"
WITHOUT_RUN = ("reference", "conventional", "fluence")
PLANNERS = (*WITHOUT_RUN, LEARNED, "generator", "teacher", "regression")


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
) -> None:
    """Plan one case: plan.safetensors, dose.nii.gz, metrics.json, report.html, and RTPLAN and RTDOSE if it was DICOM.

    Args:
        case: folder of the case, or a patient's DICOM folder, to which the options from `protocol` on apply.
        out: folder for the results; nothing of it is written unless everything is.
        planner: `reference` optimises slowly and well, `conventional` quickly and without learning, `fluence` stops at
            a fluence that no linac delivers; `learned`, `generator`, `teacher` and `regression` use a trained recipe.
            `+lbfgs`, `+adam`, `+accelerated` or `+learned` behind a name gives the fluence to that optimizer:
            `fluence+adam`, `generator+lbfgs`.
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

    Raises:
        ValueError: no such case or run, a planner that needs a run and got none, or results that are there already.
    """
    from lightning_vmat.commands.compared import compared_plan
    from lightning_vmat.commands.patient import open_patient
    from lightning_vmat.commands.plan_results import REPORT_FILE, write_results
    from lightning_vmat.data.atomic import atomic_folder
    from lightning_vmat.objectives.wishes import with_wishes
    from lightning_vmat.plan.jaws import check_jaw_margin, with_jaws
    from lightning_vmat.planning.members import started_planner

    if voxels < 1:
        raise ValueError(f"voxels {voxels}: expected at least 1")
    check_jaw_margin(jaw_margin_mm)
    if start is not None and run is not None:
        raise ValueError(f"start {start}: planner {planner} makes its own, expected --planner reference or fluence")
    member = find_planner(planner, run, voxels, seed, progress=True, evaluations=evaluations)
    opened = open_patient(case, protocol, roi_names, size, use_plan, show_identifiers, start, machine)
    opened = opened._replace(case=with_wishes(opened.case, wish or {}))
    if opened.start is not None:
        member = started_planner(planner, opened.start, voxels, seed, progress=True)
    compared = compared_plan(compare, opened, start)
    if opened.start is None:
        opened = opened._replace(case=with_jaws(opened.case, jaw_margin_mm))
    with atomic_folder(out, replace=overwrite) as draft:
        measured = write_results(draft, opened, planner, member.plan(opened.case), compared, dose_bits)
    print(_summary(measured))
    for note in opened.rois.notes() if opened.rois else []:
        print(f"  {note}")
    print(f"report: {out / REPORT_FILE}")


def find_planner(
    name: str, run: Path | None, voxels: int, seed: int, progress: bool, evaluations: int | None = None
) -> Planner:
    """A planner by name; a trained recipe's is that of the shipped weights where no run is given.

    Args:
        name: see `plan`.
        run: see `plan`.
        voxels: size of the voxel sample.
        seed: of the voxel sample and of a generator's noise.
        progress: show progress bars.
        evaluations: see `plan`.

    Raises:
        ValueError: an unknown name, or a run for a planner that takes none.
    """
    from lightning_vmat.planning.members import BUDGET, conventional_planner, fluence_planner, reference_planner

    kind, _, optimizer = name.partition("+")
    if kind not in PLANNERS or (kind in ("reference", "conventional") and name != kind):
        raise ValueError(f"planner {name!r}: expected one of {', '.join(PLANNERS)}, or fluence+adam and the like")
    if run is not None and kind in WITHOUT_RUN and optimizer != LEARNED:
        raise ValueError(f"run {run}: the {name} planner takes none")
    if evaluations is not None and kind in ("reference", "fluence"):
        raise ValueError(f"evaluations {evaluations}: the {name} planner has its own, expected a quick planner")
    budget = BUDGET if evaluations is None else evaluations
    if kind == "reference":
        return reference_planner(voxels=voxels, seed=seed, progress=progress)
    if kind == "fluence":
        return fluence_planner(_optimizer(optimizer or "lbfgs", run), voxels=voxels, seed=seed)
    if kind == "conventional":
        return conventional_planner(voxels, seed, budget, progress)
    from lightning_vmat.recipes.planning import recipe_planner
    from lightning_vmat.recipes.weights import SHIPPED

    own = _optimizer(optimizer, None) if optimizer else None
    return recipe_planner(run or Path(SHIPPED, kind), voxels, seed, progress, own, budget)


def _optimizer(name: str, run: Path | None) -> Optimizer[Any]:
    """A fluence optimizer by name; `learned` is that of a run, or the shipped one."""
    from lightning_vmat.planning.members import find_optimizer

    if name != LEARNED:
        return find_optimizer(name)
    from lightning_vmat.recipes.planning import learned_optimizer
    from lightning_vmat.recipes.weights import SHIPPED

    return learned_optimizer(run or Path(SHIPPED, LEARNED))


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
