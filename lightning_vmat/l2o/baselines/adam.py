"""Adam with projection onto non-negative fluence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lightning_vmat.l2o.optimizer import State
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class AdamState(State):
    """Adds the running means of the gradient and of its square."""

    mean: FluenceMap
    square: FluenceMap


@dataclass(frozen=True)
class Adam:
    """Projected Adam; not monotone.

    Args:
        learning_rate: step of a beamlet in units of `problem.scale_mu`.
        beta_mean: decay factor of the mean gradient.
        beta_square: decay factor of the mean squared gradient.

    Reference: Kingma and Ba, ICLR 2015, algorithm 1.
    """

    learning_rate: float = 0.1
    beta_mean: float = 0.9
    beta_square: float = 0.999

    @torch.no_grad()
    def init(self, problem: Problem, x: FluenceMap) -> AdamState:
        """Returns the state at a start (one forward, which is not counted)."""
        x = x.clamp(min=0)
        dose_gy = problem.dose(x)
        return AdamState(x, dose_gy, problem.objective(dose_gy), 0, torch.zeros_like(x), torch.zeros_like(x))

    @torch.no_grad()
    def update(self, problem: Problem, state: AdamState) -> AdamState:
        """Returns the state after one projected Adam step (one dose evaluation)."""
        count = state.evaluations + 1
        gradient = problem.gradient(state.dose_gy)
        mean = self.beta_mean * state.mean + (1 - self.beta_mean) * gradient
        square = self.beta_square * state.square + (1 - self.beta_square) * gradient.square()
        deviation = (square / (1 - self.beta_square**count)).sqrt()
        # relative to the largest deviation: gradients have the objective's unit, so no constant fits all problems
        tiny = 1e-8 * deviation.max() + torch.finfo(deviation.dtype).tiny
        step = mean / (1 - self.beta_mean**count) / (deviation + tiny)
        x = (state.x - self.learning_rate * step).clamp(min=0)
        dose_gy = problem.dose(x)
        return AdamState(x, dose_gy, problem.objective(dose_gy), count, mean, square)
