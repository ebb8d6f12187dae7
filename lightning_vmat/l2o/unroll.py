"""Running an optimizer for a number of dose evaluations, and the loss of a learned one along the way."""

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
    """What an optimizer did.

    Args:
        x: fluence over `problem.scale_mu` at the end.
        values: objective after 0, 1, 2... dose evaluations.
        seconds: wall time spent until then.
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
    """Minimise with a budget of dose evaluations.

    Args:
        problem: what to minimise.
        optimizer: how.
        x0: start.
        evaluations: budget; each is one forward and one adjoint.
        stop: whether the objectives so far are reason to stop before the budget is spent.

    Raises:
        ValueError: the start has another shape than the problem, or is not finite.
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
    """Enter a value at its number of evaluations; evaluations in between gave nothing better."""
    while len(values) < evaluations:
        values.append(values[-1])
        seconds.append(now)
    if len(values) == evaluations:
        values.append(value)
        seconds.append(now)


def unroll(
    problem: Problem, optimizer: Optimizer[AnyState], state: AnyState, steps: int
) -> tuple[AnyState, Float[Tensor, ""]]:
    """Inner steps with gradient to the optimizer's parameters, and their meta-loss.

    The loss is the mean over the steps of `log(value / value at the start of the window)`: every problem, and every
    stage of it, weighs alike.

    Args:
        problem: what to minimise.
        optimizer: how.
        state: start of the window, without graph.
        steps: length of the window, at least 1.

    Returns:
        The state at the end, with graph, and the meta-loss.
    """
    start = state.value.detach()
    tiny = 1e-6 * start.abs() + torch.finfo(start.dtype).tiny
    ratios = []
    for _ in range(steps):
        state = optimizer.update(problem, state)
        ratios.append(((state.value + tiny) / (start + tiny)).log())
    return state, torch.stack(ratios).mean()
