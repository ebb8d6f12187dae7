"""L-BFGS-B from scipy: the optimizer of a standard library, without this project's majoriser and line search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from scipy.optimize import Bounds, minimize

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import OptimizerTrace
from lightning_vmat.plan.shapes import FluenceMap


class _Enough(Exception):
    """The budget is spent, or there is another reason to stop."""


def run_scipy_lbfgsb(
    problem: Problem,
    x0: FluenceMap,
    evaluations: int,
    stop: Callable[[Sequence[float]], bool] = lambda values: False,
) -> OptimizerTrace:
    """Minimises a problem; the trace has the best objective after each dose evaluation, as that of `unroll.run`.

    Args:
        problem: the problem.
        x0: start.
        evaluations: budget, in addition to the first evaluation at the start.
        stop: called with the objectives so far; returns whether to stop before the budget is spent.

    Reference: Byrd, Lu, Nocedal, Zhu 1995.
    """
    began = time.perf_counter()
    values: list[float] = []
    seconds: list[float] = []
    best = x0

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        x = torch.from_numpy(flat).to(x0).view_as(x0)
        value, gradient, _ = problem.evaluate(x)
        if not values or float(value) < values[-1]:
            best = x
        values.append(min([float(value), *values[-1:]]))
        seconds.append(time.perf_counter() - began)
        if len(values) > evaluations or stop(values):
            raise _Enough  # scipy's own limit is checked between iterations only, not within a line search
        return float(value), gradient.flatten().double().cpu().numpy()

    flat = x0.clamp(min=0).flatten().double().cpu().numpy()
    with suppress(_Enough):
        minimize(evaluate, flat, jac=True, method="L-BFGS-B", bounds=Bounds(0, np.inf), options={"maxcor": 12})
    return OptimizerTrace(best, torch.tensor(values), torch.tensor(seconds))
