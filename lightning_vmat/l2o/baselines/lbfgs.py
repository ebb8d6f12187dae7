"""Projected L-BFGS with a majoriser-scaled first guess and an exact line search in dose space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.l2o.descent import descend, scaled_start
from lightning_vmat.l2o.optimizer import State
from lightning_vmat.l2o.problem import Problem

Pair = tuple[Float[Tensor, "control_point leaf_pair beamlet"], Float[Tensor, "control_point leaf_pair beamlet"]]


@dataclass(frozen=True)
class LBFGSState(State):
    """Adds the majoriser, past (step, gradient change) pairs, and the last point with its gradient."""

    majoriser: Float[Tensor, "control_point leaf_pair beamlet"]
    pairs: tuple[Pair, ...]
    last: Pair | None
    reach: float


@dataclass(frozen=True)
class LBFGS:
    """Monotone two-metric projected L-BFGS.

    Beamlets at zero that the gradient would close further are held; the others move along the quasi-Newton
    direction of their own subspace, are projected, and the segment is searched exactly.

    Args:
        memory: pairs kept.
        reach: gradient step over the majoriser's, where there is no pair to go by.

    Reference: Bertsekas 1982 (two-metric projection); Nocedal and Wright 2006, algorithm 7.4.
    """

    memory: int = 12
    reach: float = 4.0

    def init(self, problem: Problem, x: Float[Tensor, "control_point leaf_pair beamlet"]) -> LBFGSState:
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        return LBFGSState(x, dose_gy, value, 1, majoriser, (), None, self.reach)

    @torch.no_grad()
    def update(self, problem: Problem, state: LBFGSState) -> LBFGSState:
        gradient = problem.gradient(state.dose_gy)
        pairs = (*state.pairs, *_new_pair(state, gradient))[-self.memory :]
        free = (state.x > 0) | (gradient < 0)
        shift = quasi_newton(gradient, pairs, free, 1 / state.majoriser, state.reach)
        direction = (state.x - shift).clamp(min=0) - state.x
        if not float((gradient * direction).sum()) < 0:
            pairs = ()
            direction = (state.x - state.reach * gradient / state.majoriser).clamp(min=0) - state.x
        x, dose_gy, value, step = descend(problem, state.x, state.dose_gy, direction)
        reach = state.reach
        if step == 0:  # a stalled quasi-Newton model is forgotten, a stalled gradient step shortened
            pairs, reach = (), reach if pairs else max(reach / 4, 1e-3)
        return LBFGSState(x, dose_gy, value, state.evaluations + 1, state.majoriser, pairs, (state.x, gradient), reach)


def _new_pair(state: LBFGSState, gradient: Float[Tensor, "control_point leaf_pair beamlet"]) -> tuple[Pair, ...]:
    """The newest (step, gradient change), if it shows positive curvature."""
    if state.last is None:
        return ()
    step, change = state.x - state.last[0], gradient - state.last[1]
    enough = float((step * change).sum()) > 1e-6 * float(step.norm() * change.norm())
    return ((step, change),) if enough else ()


def quasi_newton(
    gradient: Float[Tensor, "control_point leaf_pair beamlet"],
    pairs: tuple[Pair, ...],
    free: Bool[Tensor, "control_point leaf_pair beamlet"],
    inverse_metric: Float[Tensor, "control_point leaf_pair beamlet"],
    reach: float,
) -> Float[Tensor, "control_point leaf_pair beamlet"]:
    """Approximate inverse Hessian times gradient, within the free beamlets; two-loop recursion."""
    shift = torch.where(free, gradient, 0)
    used: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for step, change in reversed(pairs):
        step, change = torch.where(free, step, 0), torch.where(free, change, 0)
        curvature = (step * change).sum()
        if not float(curvature) > 1e-8 * float(step.norm() * change.norm()):
            continue
        weight = (step * shift).sum() / curvature
        shift = shift - weight * change
        used.append((step, change, curvature, weight))
    scale = reach
    if used:
        _, change, curvature, _ = used[0]
        scale = float(curvature / (change.square() * inverse_metric).sum())
    shift = scale * inverse_metric * shift
    for step, change, curvature, weight in reversed(used):
        shift = shift + step * (weight - (change * shift).sum() / curvature)
    return torch.where(free, shift, 0)
