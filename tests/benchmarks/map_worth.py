"""What a fluence map is worth to a quick planner: the reference plans' own maps in place of a network's.

`python tests/benchmarks/map_worth.py --json F`, on training phantoms, with three reference plans each that differ in
the seed of the voxel samples. A perfect generator would give such a map; a perfect regression, which averages over
equally good plans, their mean. Takes two minutes a phantom on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from lightning_vmat.cases.phantom.source import PhantomSource
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.planners import conventional_planner, learned_planner, reference_planner
from lightning_vmat.planning.problem import VOXELS, CaseProblems

PHANTOMS, SEEDS, BUDGETS = (3, 9, 102, 104), (0, 10, 20), (10, 20, 35)


def from_map(problems: CaseProblems, fluence_mu: FluenceMap, evaluations: int) -> float:
    """Objective of a quick plan that starts from a map, on the voxel sample."""
    planner = learned_planner(
        lambda its: fluence_mu / its.whole.scale_mu,
        None,
        VOXELS,
        seed=0,
        fluence_evaluations=0,
        evaluations=evaluations,
    )
    return planner.solve(problems, Trace()).trace.points[-1].objective


def worth(phantom: int) -> dict[str, object]:
    """Objectives of one phantom's plans, and how alike the reference plans' maps are."""
    case = PhantomSource(phantom, "base", jaw_margin_mm=8.0).load().case
    problems = CaseProblems(case)
    problem = problems.whole
    results = [reference_planner(seed=seed).plan(case) for seed in SEEDS]
    maps = torch.stack([result.fluence_mu for result in results])
    pairs = torch.corrcoef(maps[:, case.beamlets.inside_jaws.expand(maps.shape[1:])])[*torch.triu_indices(3, 3, 1)]
    starts = {"its own map": maps[0], "of another seed": maps[1], "mean of two other seeds": maps[1:].mean(dim=0)}
    rows = {name: [from_map(problems, start, n) for n in BUDGETS] for name, start in starts.items()}
    quick = [conventional_planner(evaluations=n).solve(problems, Trace()) for n in BUDGETS]
    return {
        "phantom": phantom,
        "correlation of two maps": float(pairs.mean()),
        "reference": [float(problem.value(fluence_mu / problem.scale_mu)) for fluence_mu in maps],
        "evaluations": BUDGETS,
        **rows,
        "conventional": [result.trace.points[-1].objective for result in quick],
    }


def main() -> None:
    """Write the figures of all phantoms, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for phantom in PHANTOMS:
        rows.append(worth(phantom))
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
