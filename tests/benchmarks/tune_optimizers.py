"""Settings of the hand-made fluence optimizers, searched on training phantoms: median objective after 20 and 100
dose evaluations from the open field.

    python tests/benchmarks/tune_optimizers.py --seeds 0 1 2 --size base --json F
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cases.sizes import get_size
from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.unroll import run
from lightning_vmat.planning.problem import build_problem
from lightning_vmat.progress import track

COLUMNS = (20, 100)


def members() -> dict[str, Optimizer[Any]]:
    """Every setting that is tried."""
    tried: dict[str, Optimizer[Any]] = {}
    for rate in (0.0125, 0.025, 0.05, 0.1, 0.2):
        for square in (0.95, 0.999):
            tried[f"adam, rate {rate}, beta_square {square}"] = Adam(rate, beta_square=square)
    for reach in (0.5, 1.0, 2.0, 4.0):
        tried[f"accelerated, reach {reach}"] = AcceleratedProjectedGradient(reach)
    for memory in (6, 12, 24):
        for reach in (1.0, 2.0, 4.0):
            tried[f"lbfgs, memory {memory}, reach {reach}"] = LBFGS(memory, reach)
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="base")
    parser.add_argument("--json", type=Path, required=True)
    chosen = parser.parse_args()
    values: dict[str, list[list[float]]] = {}
    for seed in chosen.seeds:
        problem = build_problem(make_phantom(seed, chosen.size), get_size(chosen.size).optimised_voxels)
        for name, optimizer in track(members().items(), f"phantom {seed}"):
            trace = run(problem, optimizer, problem.open_field, max(COLUMNS))
            values.setdefault(name, []).append([float(trace.values[column]) for column in COLUMNS])
    table = {
        name: {str(column): median(row[i] for row in rows) for i, column in enumerate(COLUMNS)}
        for name, rows in values.items()
    }
    figures = {"seeds": chosen.seeds, "size": chosen.size, "median objective": table}
    chosen.json.write_text(json.dumps(figures, indent=1))
    for name, row in sorted(table.items(), key=lambda item: item[1][str(COLUMNS[-1])]):
        print(f"{name:40}" + "".join(f"{value:10.1f}" for value in row.values()))


if __name__ == "__main__":
    main()
