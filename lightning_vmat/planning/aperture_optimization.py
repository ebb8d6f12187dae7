"""Direct aperture optimization: leaf tips and monitor units down the gradient of the delivered dose's objective."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan, aperture_fluence
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.planner import Trace


@dataclass(frozen=True)
class ApertureOptimization:
    """Projected, normalised gradient descent with momentum; every iterate keeps all machine limits.

    The gradient of each kind of variable (leaf tips, monitor units) is divided by a running root mean square: over all
    tips of a leaf pair for the leaves, per control point for the monitor units. Steps shrink along a cosine. The best
    iterate is kept.

    Args:
        iterations: dose evaluations to spend.
        leaf_step_mm: first step of a leaf tip with a typical gradient.
        mu_step: first step of a control point's monitor units, relative to the mean.
        momentum: share of the last direction kept.
        final_step: last step relative to the first.
        progress: show a progress bar.
    """

    iterations: int = 200
    leaf_step_mm: float = 2.0
    mu_step: float = 0.05
    momentum: float = 0.9
    final_step: float = 0.02
    progress: bool = False

    def refine(self, case: Case, problem: Problem, plan: Plan, trace: Trace, stage: str = "apertures") -> Plan:
        """Improve a plan.

        Args:
            case: gives beamlets, machine and control points.
            problem: the objective on delivered dose.
            plan: where to start; projected to the machine limits first.
            trace: takes the course.
            stage: name of this work in the trace.

        Returns:
            The best plan met, never worse than the projected start, without a violation.
        """
        begin = time.perf_counter()
        plan = project_to_limits(plan, case.control_points, case.machine)
        variables = (plan.left_mm, plan.right_mm, plan.mu)
        first_moment = [torch.zeros_like(v) for v in variables]
        scales = (self.leaf_step_mm, self.leaf_step_mm, self.mu_step * float(plan.mu.mean()))
        second_moment: list[Tensor] = [torch.zeros(())] * 3
        best, best_value = plan, torch.tensor(torch.inf)
        for iteration in tqdm(range(self.iterations), desc=stage, disable=not self.progress, leave=False):
            value, gradients = self._evaluate(case, problem, plan)
            better = bool(value < best_value)
            if better:
                best, best_value = plan, value
            trace.add(stage, iteration + 1, time.perf_counter() - begin, float(value))
            share = self.final_step + (1 - self.final_step) * (1 + math.cos(math.pi * iteration / self.iterations)) / 2
            debias = 1 - self.momentum ** (iteration + 1)
            moved = []
            for i, (variable, gradient) in enumerate(
                zip((plan.left_mm, plan.right_mm, plan.mu), gradients, strict=True)
            ):
                first_moment[i] = self.momentum * first_moment[i] + (1 - self.momentum) * gradient
                power = gradient.square().mean()
                second_moment[i] = 0.99 * second_moment[i] + 0.01 * power if iteration else power
                step = first_moment[i] / debias / (second_moment[i].sqrt() + 1e-12)
                moved.append(variable - share * scales[i] * step.clamp(-3.0, 3.0))
            plan = project_to_limits(Plan(*moved), case.control_points, case.machine)
        trace.spend(self.iterations)
        return best

    def _evaluate(self, case: Case, problem: Problem, plan: Plan) -> tuple[Float[Tensor, ""], tuple[Tensor, ...]]:
        variables = tuple(v.detach().requires_grad_() for v in (plan.left_mm, plan.right_mm, plan.mu))
        fluence = aperture_fluence(*variables, case.beamlets, case.machine)
        value, gradient, _ = problem.evaluate(fluence.detach() / problem.scale_mu)
        return value, torch.autograd.grad(fluence, variables, gradient / problem.scale_mu)
