"""How a session's plan is made and judged, without the session's state."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.api.planners import ConfiguredPlanner
from lightning_vmat.explore.cancelling import Check
from lightning_vmat.explore.made_plan import Computation, MadePlan
from lightning_vmat.explore.measured import estimated, exact
from lightning_vmat.explore.proposals import Proposer, normalised
from lightning_vmat.explore.workbench import Workbench, plan_objective
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import machine_violations
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.evaluation import evaluate_plan
from lightning_vmat.planning.planner import PlanResult, Trace, TracePoint


@torch.no_grad()
def make_plan(
    computation: Computation,
    current: MadePlan | None,
    planner: ConfiguredPlanner,
    bench: Workbench,
    changed: Callable[[], None],
) -> MadePlan:
    """Makes the plan of a computation; its figures are estimated on the voxels of the problem.

    Args:
        computation: gives settings and seed, and receives stage, course and preview.
        current: plan from which to start; None to plan from scratch.
        planner: the planner of the settings.
        bench: problems and operators for the arcs of the settings.
        changed: called after each change of the computation.

    Returns:
        The plan, with number 0.

    Raises:
        Cancelled: the computation was cancelled.
        ValueError: a case that cannot be planned, or a planner that ends in an ideal fluence.
    """
    settings = computation.settings
    computation.enter("problem")
    changed()
    case = bench.wished(settings.wishes)
    problems = bench.problems(case, computation.check)
    objective = plan_objective(problems.whole)
    trace, begin = Trace(), time.perf_counter()

    def watch(point: TracePoint, dose_gy: Tensor | None) -> None:
        computation.enter(point.stage)
        computation.course = None if dose_gy is None else estimated(case, objective, dose_gy)
        computation.points.append((point.dose_evaluations, time.perf_counter() - begin, point.objective))
        changed()

    def preview(fluence_mu: FluenceMap, problem: Problem, dose_gy: Tensor) -> None:
        computation.preview = fluence_mu, estimated(case, plan_objective(problem), dose_gy)
        changed()

    trace.watch = watch
    computation.enter("start")
    changed()
    proposer = Proposer(planner, bench, preview)
    if current is None:
        plan = proposer.from_scratch(problems, computation.seed, trace)
    else:
        start = current.plan, current.sample_dose_gy
        plan = proposer.from_plan(problems, *start, settings.evaluations, computation.seed, trace)
    trace.watch = None
    plan = normalised(bench, case, plan, settings.normalisation)
    dose_gy = bench.sample_dose(plan)
    return MadePlan(
        number=0, settings=settings, seed=computation.seed, case=case, plan=plan, trace=trace,
        sample_dose_gy=dose_gy, measured=estimated(case, objective, dose_gy),
        violations=machine_violations(plan, case.beam_setup),
        delivery_s=float(delivery_seconds(plan, case.beam_setup).sum()),
    )  # fmt: skip


@torch.no_grad()
def judge_plan(made: MadePlan, bench: Workbench, check: Check) -> tuple[MadePlan, Float[Tensor, "z y x"]]:
    """Returns a plan with figures of every voxel of the body, and its dose.

    Args:
        made: the plan.
        bench: operators for its arcs.
        check: called between parts of the body; what it raises ends the computation.
    """
    evaluation = evaluate_plan(made.case, plan_result(made), bench.body_dose(check))
    without_dose = replace(evaluation, dose_gy=torch.zeros(0, 0, 0))  # a session keeps the doses of few plans
    return replace(made, measured=exact(made.case, evaluation), evaluation=without_dose), evaluation.dose_gy


def plan_result(made: MadePlan) -> PlanResult:
    """Returns a plan as the result of a planner, for evaluation and reports."""
    fluence_mu = made.plan.fluence_mu(made.case.beam_setup)
    trace = Trace(list(made.trace.points), dict(made.trace.seconds), made.trace.dose_evaluations)
    return PlanResult(fluence_mu, made.plan, trace, case=made.case, planner=made.settings.planner)
