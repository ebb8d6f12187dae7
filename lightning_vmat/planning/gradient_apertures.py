"""Direct aperture optimization: gradient descent in leaf tips and monitor units on the delivered dose's objective."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.line_search import search_step
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan, delivered_fluence
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.planner import Trace
from lightning_vmat.progress import track

KEPT_MEAN, KEPT_SQUARE = 0.8, 0.98  # decay factors of the running moments
FINAL_STEP, TINY = 0.02, 1e-12
SET_UP = 1  # dose evaluations before the first step, for two forward projections


@dataclass(frozen=True)
class GradientApertures:
    """Projected, normalised gradient descent with momentum; every iterate satisfies all machine limits.

    Monitor units are first scaled to the best multiple, which needs no dose evaluation beyond that of the start. A
    gradient is divided by the geometric mean of two running root mean squares, the variable's own and that of its kind
    (tips of one bank, monitor units): the first alone would move unimportant leaves as far as important ones, the
    second alone would hardly move leaves of control points with few monitor units. Step sizes decrease along a cosine.
    The best iterate is kept.

    Args:
        iterations: dose evaluations, in addition to one for setting up.
        leaf_step_mm: initial step of a leaf tip with a typical gradient.
        mu_step: initial step of a control point's monitor units, relative to the mean.
        progress: show a progress bar.

    Reference: Kingma and Ba 2015 (running moments); Hardcastle et al. 2012, Otto 2008 (aperture-based VMAT).
    """

    iterations: int = 200
    leaf_step_mm: float = 2.0
    mu_step: float = 0.05
    progress: bool = False

    def refine(self, case: Case, problem: Problem, plan: Plan, trace: Trace, stage: str = "apertures") -> Plan:
        """Improves a plan.

        Args:
            case: gives beamlets, machine and control points.
            problem: objective of the delivered dose.
            plan: start; scaled and projected to the machine limits first.
            trace: records the course.
            stage: name of the stage in the trace.

        Returns:
            The best plan found, without violations, never worse than the start after its projection.
        """
        begin = time.perf_counter()
        plan = project_to_limits(plan, case.beam_setup)
        plan = project_to_limits(_scale_monitor_units(case, problem, plan), case.beam_setup)
        best, best_value = plan, float(problem.value(plan.fluence_mu(case.beam_setup) / problem.scale_mu))
        moments = [_Moments() for _ in range(3)]
        scales = (self.leaf_step_mm, self.leaf_step_mm, self.mu_step * float(plan.mu.mean()))
        for iteration in track(range(self.iterations), stage, shown=self.progress, lasting=False):
            value, gradients = _evaluate(case, problem, plan)
            if value < best_value:
                best, best_value = plan, value
            trace.add(stage, iteration + 1 + SET_UP, time.perf_counter() - begin, value)
            share = FINAL_STEP + (1 - FINAL_STEP) * (1 + math.cos(math.pi * iteration / self.iterations)) / 2
            moved = [
                variable - share * scale * moment.direction(gradient)
                for variable, gradient, moment, scale in zip(_variables(plan), gradients, moments, scales, strict=True)
            ]
            plan = project_to_limits(Plan(*moved), case.beam_setup)
        trace.spend(self.iterations + SET_UP)
        return best


class _Moments:
    """Running mean and mean square of the gradient by one kind of variable."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, torch.zeros(()), torch.zeros(())

    def direction(self, gradient: Float[Tensor, "*variable"]) -> Float[Tensor, "*variable"]:
        """Returns the averaged and normalised gradient, clamped to [-3, 3]."""
        self.count += 1
        self.mean = KEPT_MEAN * self.mean + (1 - KEPT_MEAN) * gradient
        self.square = KEPT_SQUARE * self.square + (1 - KEPT_SQUARE) * gradient.square()
        mean = self.mean / (1 - KEPT_MEAN**self.count)
        square = self.square / (1 - KEPT_SQUARE**self.count)
        return (mean / ((square * square.mean()).sqrt().sqrt() + TINY)).clamp(-3.0, 3.0)


def _variables(plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    return plan.left_mm, plan.right_mm, plan.mu


def _evaluate(case: Case, problem: Problem, plan: Plan) -> tuple[float, tuple[Tensor, ...]]:
    """Returns the objective of the delivered dose and its gradient by all variables: one dose evaluation."""
    left, right, mu = (variable.detach().requires_grad_() for variable in _variables(plan))
    with torch.enable_grad():  # planners may be called without it
        fluence_mu = delivered_fluence(left, right, mu, case.beam_setup)
    value, gradient, _ = problem.evaluate(fluence_mu.detach() / problem.scale_mu)
    return float(value), torch.autograd.grad(fluence_mu, (left, right, mu), gradient / problem.scale_mu)


def _scale_monitor_units(case: Case, problem: Problem, plan: Plan) -> Plan:
    """Returns the plan with the best multiple of its monitor units, searched in dose space."""
    dose_gy = problem.dose(plan.fluence_mu(case.beam_setup) / problem.scale_mu)
    step = search_step(problem.objective, torch.zeros_like(dose_gy), dose_gy, longest=4.0)
    return replace(plan, mu=plan.mu * max(step, 0.1))
