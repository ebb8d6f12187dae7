"""Projected L-BFGS with a majoriser-scaled first guess and an exact line search in dose space."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightning_vmat.l2o.descent import descend, scaled_start
from lightning_vmat.l2o.optimizer import State
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import QuasiNewton
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class LBFGSState(State):
    """Adds the quasi-Newton model."""

    model: QuasiNewton


@dataclass(frozen=True)
class LBFGS:
    """Monotone two-metric projected L-BFGS.

    Beamlets at zero that the gradient would lower further are held. The others move along the quasi-Newton direction
    of their subspace and are projected; the segment to the projected point is searched in dose space.

    Args:
        memory: number of pairs kept.
        reach: length of a gradient step without pairs, as a factor on the preconditioned gradient.

    Reference: Bertsekas 1982 (two-metric projection); Nocedal and Wright 2006, algorithm 7.4.
    """

    memory: int = 12
    reach: float = 2.0

    def init(self, problem: Problem, x: FluenceMap) -> LBFGSState:
        """Returns the state at the best multiple of a start (one dose evaluation)."""
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        return LBFGSState(x, dose_gy, value, 1, QuasiNewton(majoriser, self.reach, self.memory))

    @torch.no_grad()
    def update(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        """Returns the state after one quasi-Newton step (one dose evaluation); never raises the objective."""
        gradient = problem.gradient(state.dose_gy)
        free = (state.x > 0) | (gradient < 0)
        model = state.model.observe(state.x, gradient).at(problem, state.dose_gy, free)
        direction = (state.x + model.step(gradient, free)).clamp(min=0) - state.x
        if not float((gradient * direction).sum()) < 0:  # projection can turn a descent direction into none
            model = model.forget()
            direction = (state.x + model.gradient_step(gradient)).clamp(min=0) - state.x
        x, dose_gy, value, step = descend(problem, state.x, state.dose_gy, direction)
        if step == 0:
            model = model.forget()
        return LBFGSState(x, dose_gy, value, state.evaluations + 1, model)
