"""Comparison of a learned optimizer with hand-designed ones: objective after a number of dose evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from torch import distributed as dist

from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.unroll import OptimizerTrace, run
from lightning_vmat.plan.shapes import FluenceMap

COLUMNS = (0, 5, 10, 20)  # dose evaluations
JUDGED = 10  # the column that is logged, with its seconds
ADAM_RATES = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4)
LEARNED, ADAM, OPEN_FIELD = "learned", "adam", "lbfgs_from_open_field"

Table = dict[str, dict[str, float]]


class Comparison:
    """Runs every optimizer from the same starts, and L-BFGS also from the open field; stores their traces."""

    def __init__(self) -> None:
        self.traces: dict[str, list[OptimizerTrace]] = {}

    def add(self, problem: Problem, learned: LearnedOptimizer, x0: FluenceMap) -> None:
        """Runs all optimizers on one problem; the run from the open field shows the value of the start."""
        members: dict[str, Optimizer[Any]] = {
            LEARNED: learned,
            "lbfgs": LBFGS(),
            "accelerated_gradient": AcceleratedProjectedGradient(),
        }
        members |= {_adam(rate): Adam(rate) for rate in ADAM_RATES}
        for name, optimizer in members.items():
            self.traces.setdefault(name, []).append(run(problem, optimizer, x0, max(COLUMNS)))
        self.traces.setdefault(OPEN_FIELD, []).append(run(problem, LBFGS(), problem.open_field, max(COLUMNS)))

    def gather(self) -> None:
        """Gathers the traces of all ranks; a collective operation, without effect in a single process."""
        if not (dist.is_available() and dist.is_initialized()):
            return
        parts: list[dict[str, list[OptimizerTrace]]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, self.traces)
        self.traces = {name: [trace for part in parts for trace in part[name]] for name in parts[0]}

    def table(self) -> Table:
        """Returns medians over the problems: the objective after each number of evaluations, and seconds for `JUDGED`.

        Adam's learning rate is the best in each column, chosen on the test cases themselves: this favours Adam, if
        anything.
        """
        rows = {name: _row(traces) for name, traces in self.traces.items()}
        rates = [rows.pop(_adam(rate)) for rate in ADAM_RATES]
        return rows | {ADAM: {column: min(row[column] for row in rates) for column in rates[0]}}

    def adam_rates(self) -> dict[str, float]:
        """Returns Adam's best learning rate in each column; if it is an end of `ADAM_RATES`, that list is too short."""
        rows = {rate: _row(self.traces[_adam(rate)]) for rate in ADAM_RATES}
        return {str(c): min(rows, key=lambda rate: rows[rate][str(c)]) for c in COLUMNS if c > 0}


def as_text(table: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the table as text with fixed-width columns."""
    columns = list(next(iter(table.values())))
    lines = ["median objective by number of dose evaluations", f"{'':22}" + "".join(f"{c:>12}" for c in columns)]
    lines += [f"{name:22}" + "".join(f"{row[c]:12.4g}" for c in columns) for name, row in table.items()]
    return "\n".join(lines)


def _adam(rate: float) -> str:
    return f"{ADAM} {rate}"


def _row(traces: Sequence[OptimizerTrace]) -> dict[str, float]:
    row = {str(column): median(float(trace.values[column]) for trace in traces) for column in COLUMNS}
    return row | {f"seconds_{JUDGED}": median(float(trace.seconds[JUDGED]) for trace in traces)}
