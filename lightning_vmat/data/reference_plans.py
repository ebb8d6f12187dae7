"""Reference plans of a cohort's cases, what they were made with, and how good they are."""

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

QUALITY = ("goals_met", "goals", "unmet", "violations")  # of a plan's metadata, for the manifest


def planner_settings(size: str) -> dict[str, object]:
    """Everything that the plans of a size depend on beside the case, for the manifest."""
    parameters = inspect.signature(reference_planner).parameters
    settings = {name: p.default for name, p in parameters.items() if name != "progress"}
    return {"planner": "reference", **settings, "voxels": get_size(size).optimised_voxels}


def reference_plan(case: Case, size: str) -> tuple[Plan, dict[str, Any]]:
    """A plan of the reference planner, how it was made and how good it is; the same bits each time.

    The metadata holds the settings, the clinical goals met, and `scale_mu`, the unit of fluence of the case's problem
    on the voxels that the plan was optimised on, so that loaders need not build the problem to know it.

    Raises:
        ValueError: no plan, or one that breaks limits of the machine.
    """
    settings = planner_settings(size)
    result = reference_planner(voxels=get_size(size).optimised_voxels).plan(case)
    if result.plan is None:
        raise ValueError(f"case {case.case_id}: the reference planner gave no deliverable plan")
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
