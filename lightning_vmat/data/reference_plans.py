"""Reference plans of a cohort, with their settings and quality."""

from __future__ import annotations

import inspect
from typing import Any

from lightning_vmat import __version__
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import evaluate_plan
from lightning_vmat.planning.planners import reference_planner
from lightning_vmat.planning.problem import build_problem

QUALITY = ("goals_met", "goals", "unmet", "violations")  # keys of a plan's metadata that go into the manifest


def planner_settings(size: str) -> dict[str, object]:
    """All settings that the plans of a size depend on, for the manifest."""
    parameters = inspect.signature(reference_planner).parameters
    settings = {name: p.default for name, p in parameters.items() if name != "progress"}
    return {"planner": "reference", **settings, "voxels": get_size(size).optimised_voxels}


def reference_plan(case: Case, size: str) -> tuple[Plan, dict[str, Any]]:
    """Make a reference plan with its metadata: the same bits each time.

    The metadata contain the settings, the clinical goals met, and `scale_mu`, the unit of fluence of the problem
    on the voxel sample of the plan, so that loaders need not build the problem.

    Raises:
        ValueError: no plan, or a plan that breaks limits of the machine.
    """
    settings = planner_settings(size)
    result = reference_planner(voxels=get_size(size).optimised_voxels).plan(case)
    if result.plan is None:
        raise ValueError(f"case {case.case_id}: no plan from the reference planner, expected a deliverable one")
    evaluation = evaluate_plan(case, result)
    if any(evaluation.violations.values()):
        raise ValueError(f"case {case.case_id}: reference plan breaks {evaluation.violations}, expected no violations")
    problem = build_problem(case, get_size(size).optimised_voxels, int(str(settings["seed"])))
    metadata = {
        **settings,
        "package_version": __version__,
        **({"wishes": dict(case.wishes)} if case.wishes else {}),
        "dose_evaluations": result.trace.dose_evaluations,
        "objective": evaluation.objective,
        "scale_mu": problem.scale_mu,
        "goals_met": sum(goal.met for goal in evaluation.goals),
        "goals": len(evaluation.goals),
        "unmet": [f"{goal.structure} {goal.measure}" for goal in evaluation.goals if not goal.met],
        "violations": sum(evaluation.violations.values()),
    }
    return result.plan, metadata
