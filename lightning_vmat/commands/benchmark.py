"""`vmat benchmark`: planners side by side on the held-out cases of a cohort."""

from __future__ import annotations

from pathlib import Path


def benchmark(
    *,
    cohort: Path,
    planners: list[str],
    json: Path,
    voxels: int = 15000,
    cases: int | None = None,
) -> None:
    """Plan every held-out case with each planner; print medians and write all figures.

    Args:
        cohort: folder that `vmat prepare` wrote.
        planners: names, with the run of those that need one: `reference`, `generator=runs/demo/distillation`.
        json: file for the figures: each case, and quartiles over cases.
        voxels: size of the voxel sample on which plans are optimised; they are judged on all of the body.
        cases: how many of the held-out cases; all if not given.

    Raises:
        ValueError: an unknown planner, a missing run, or an empty cohort.
    """
    from json import dumps

    from tqdm import tqdm

    from lightning_vmat.commands.plan import find_planner
    from lightning_vmat.data.atomic import atomic_file
    from lightning_vmat.data.case_files import read_case
    from lightning_vmat.data.cohort import read_cohort
    from lightning_vmat.planning.comparison import as_table, measure, quartiles
    from lightning_vmat.planning.evaluation import evaluate_plan

    folders = read_cohort(cohort).folders("test")[:cases]
    members = {}
    for spec in planners:
        name, _, run = spec.partition("=")
        members[name] = find_planner(name, Path(run) if run else None, voxels, seed=0, progress=False)
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in members}
    for folder in tqdm(folders, desc="cases"):
        case = read_case(folder)
        for name, member in members.items():
            result = member.plan(case)
            rows[name][case.case_id] = measure(case, result, evaluate_plan(case, result))
    summary = {name: quartiles(measured.values()) for name, measured in rows.items()}
    with atomic_file(json) as draft:
        draft.write_text(
            dumps({"cohort": str(cohort), "voxels": voxels, "quartiles": summary, "cases": rows}, indent=1)
        )
    print(f"medians over {len(folders)} held-out cases")
    print(as_table(summary))
