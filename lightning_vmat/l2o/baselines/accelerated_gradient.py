"""Accelerated projected gradient with a diagonal metric, exact line search and restart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.descent import descend, scaled_start
from lightning_vmat.l2o.optimizer import State
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class AcceleratedState(State):
    """Adds the previous point and its dose, the momentum's counter, the metric, and the length of the next step."""

    previous_x: FluenceMap
    previous_dose_gy: Float[Tensor, " voxel"]
    clock: float
    majoriser: FluenceMap
    reach: float


@dataclass(frozen=True)
class AcceleratedProjectedGradient:
    """Monotone FISTA in the metric of the majoriser.

    The dose of the extrapolated point is extrapolated too, which costs no projection. Each step ends with a line search
    from the last point, so that no step raises the objective; a short step restarts the momentum.

    Args:
        reach: length of the first gradient step, as a factor on the gradient over the majoriser; adapted later.

    Reference: Beck and Teboulle 2009 (monotone FISTA); O'Donoghue and Candes 2015 (adaptive restart).
    """

    reach: float = 2.0

    def init(self, problem: Problem, x: FluenceMap) -> AcceleratedState:
        """Returns the state at the best multiple of a start (one dose evaluation)."""
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        return AcceleratedState(x, dose_gy, value, 1, x, dose_gy, 1.0, majoriser, self.reach)

    @torch.no_grad()
    def update(self, problem: Problem, state: AcceleratedState) -> AcceleratedState:
        """Returns the state after one accelerated step (one dose evaluation)."""
        next_clock = (1 + (1 + 4 * state.clock**2) ** 0.5) / 2  # t_(k+1) of FISTA
        momentum = (state.clock - 1) / next_clock
        ahead = state.x + momentum * (state.x - state.previous_x)
        ahead_dose_gy = state.dose_gy + momentum * (state.dose_gy - state.previous_dose_gy)
        gradient = problem.gradient(ahead_dose_gy)
        target = (ahead - state.reach * gradient / state.majoriser).clamp(min=0)
        x, dose_gy, value, step = descend(problem, state.x, state.dose_gy, target - state.x)
        # a full step suggests a longer reach, a short one means that the curvature was underestimated
        reach = state.reach * (1.5 if step >= 0.99 else 0.6 if step < 0.5 else 1.0)
        clock = next_clock if step >= 0.3 else 1.0
        return AcceleratedState(
            x, dose_gy, value, state.evaluations + 1, state.x, state.dose_gy, clock, state.majoriser, reach
        )
