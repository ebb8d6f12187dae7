"""Monotone moves: search along a feasible segment in dose space, with one forward projection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.line_search import longest_step, search_step
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@torch.no_grad()
def descend(
    problem: Problem,
    x: FluenceMap,
    dose_gy: Float[Tensor, " voxel"],
    direction: FluenceMap,
) -> tuple[FluenceMap, Float[Tensor, " voxel"], Float[Tensor, ""], float]:
    """Moves to the best point on the non-negative part of `x + step * direction` (one forward projection).

    Returns:
        The new x, its dose, its objective, and the step; with a step of 0 all are unchanged.
    """
    return move(problem, x, dose_gy, direction, problem.dose(direction))


@torch.no_grad()
def move(
    problem: Problem,
    x: FluenceMap,
    dose_gy: Float[Tensor, " voxel"],
    direction: FluenceMap,
    direction_dose_gy: Float[Tensor, " voxel"],
) -> tuple[FluenceMap, Float[Tensor, " voxel"], Float[Tensor, ""], float]:
    """Does what `descend` does along a direction whose dose is already known, without a projection."""
    finite = bool(direction.isfinite().all() & direction_dose_gy.isfinite().all())
    step = search_step(problem.objective, dose_gy, direction_dose_gy, longest_step(x, direction)) if finite else 0.0
    if step > 0:
        x, dose_gy = (x + step * direction).clamp(min=0), dose_gy + step * direction_dose_gy
    return x, dose_gy, problem.objective(dose_gy), step


@torch.no_grad()
def scaled_start(
    problem: Problem, x: FluenceMap
) -> tuple[
    FluenceMap,
    Float[Tensor, " voxel"],
    Float[Tensor, ""],
    FluenceMap,
]:
    """Finds the best multiple of a start, and the majoriser at the start (one dose evaluation).

    Returns:
        x, its dose, its objective, and the majoriser.
    """
    x = x.clamp(min=0)
    dose_gy = problem.dose(x)
    majoriser = problem.majoriser(dose_gy)
    # dose is linear, so multiples of x need no projection; -x can shrink it to zero, x can grow it up to fivefold
    grown = move(problem, x, dose_gy, x, dose_gy)
    shrunk = move(problem, x, dose_gy, -x, -dose_gy)
    best = grown if bool(grown[2] <= shrunk[2]) else shrunk
    return best[0], best[1], best[2], majoriser
