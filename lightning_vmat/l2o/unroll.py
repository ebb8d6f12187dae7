"""Runs of an optimizer for a budget of dose evaluations, and unrolls with the meta-loss of a learned one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.optimizer import AnyState, Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class OptimizerTrace:
    """Course of an optimizer.

    Args:
        x: final fluence over `problem.scale_mu`.
        values: objective after 0, 1, 2... dose evaluations.
        seconds: wall time spent up to each of them.
    """

    x: FluenceMap
    values: Float[Tensor, " evaluation"]
    seconds: Float[Tensor, " evaluation"]


@torch.no_grad()
def run(
    problem: Problem,
    optimizer: Optimizer[AnyState],
    x0: FluenceMap,
    evaluations: int,
    stop: Callable[[Sequence[float]], bool] = lambda values: False,
) -> OptimizerTrace:
    """Minimises a problem with a budget of dose evaluations.

    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.l2o.baselines.lbfgs import LBFGS
    >>> from lightning_vmat.l2o.unroll import run
    >>> problem = vmat.build_problem(vmat.phantom(0, size="tiny"), voxels=300)
    >>> trace = run(problem, LBFGS(), problem.open_field, evaluations=10)
    >>> len(trace.values), bool(trace.values[-1] < 0.5 * trace.values[0])  # before and after each evaluation
    (11, True)

    Args:
        problem: the problem.
        optimizer: the optimizer.
        x0: start.
        evaluations: budget; each is one forward and one adjoint.
        stop: called with the objectives so far; returns whether to stop before the budget is spent.

    Raises:
        ValueError: a start of another shape than the problem's, or one that is not finite.
    """
    if x0.shape != problem.open_field.shape:
        expected = tuple(problem.open_field.shape)
        raise ValueError(f"{problem.name}: start of shape {tuple(x0.shape)}, expected {expected}")
    if not bool(x0.isfinite().all()):
        raise ValueError(f"{problem.name}: start holds NaN or infinite fluence")
    began = time.perf_counter()
    values, seconds = [float(problem.value(x0.clamp(min=0)))], [0.0]
    state = optimizer.init(problem, x0)
    _note(values, seconds, state.evaluations, float(state.value), time.perf_counter() - began)
    while state.evaluations < evaluations and not stop(values):
        state = optimizer.update(problem, state)
        _note(values, seconds, state.evaluations, float(state.value), time.perf_counter() - began)
    return OptimizerTrace(state.x, torch.tensor(values), torch.tensor(seconds))


def _note(values: list[float], seconds: list[float], evaluations: int, value: float, now: float) -> None:
    """Records a value at its number of evaluations; evaluations in between repeat the value before."""
    while len(values) < evaluations:
        values.append(values[-1])
        seconds.append(now)
    if len(values) == evaluations:
        values.append(value)
        seconds.append(now)


def unroll(
    problem: Problem, optimizer: Optimizer[AnyState], state: AnyState, steps: int
) -> tuple[AnyState, Float[Tensor, ""]]:
    """Runs inner steps that are differentiable by the optimizer's parameters, and computes their meta-loss.

    The loss is the mean over the steps of `log(value / value at the start of the window)`, so that all problems, and
    all stages of one problem, have equal weight.

    Args:
        problem: the problem.
        optimizer: the optimizer.
        state: start of the window, without graph.
        steps: length of the window, at least 1.

    Returns:
        The state at the end, with graph, and the meta-loss.
    """
    start = state.value.detach()
    # keeps the logarithm finite where an objective reaches zero
    tiny = 1e-6 * start.abs() + torch.finfo(start.dtype).tiny
    ratios = []
    for _ in range(steps):
        state = optimizer.update(problem, state)
        ratios.append(((state.value + tiny) / (start + tiny)).log())
    return state, torch.stack(ratios).mean()
