"""How far a network's maps follow a wish before any optimization, beside the reference planner's plans.

python tests/benchmarks/wish_response.py --json tests/benchmarks/wish_response.json

Ten held-out phantoms, six wishes: change of the figure that a wish is for, with the PTV's median dose scaled to the
prescription, over the change that the reference planner makes; and the objective under the wish of the map made for it,
over that of the map made without. About three minutes a phantom on one core.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from by_phantom import main
from torch import Tensor

from lightning_vmat.api.planners import JAW_MARGIN_MM
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.metrics.conformity import paddick_index
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.objectives.wishes import with_wishes
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.planning.planners import reference_planner
from lightning_vmat.planning.problem import CaseProblems
from lightning_vmat.recipes.trained import load_start

WISHES = (("Rectum", 4.0), ("Rectum", 0.25), ("Bladder", 4.0), ("Bladder", 0.25), ("FemoralHeads", 4.0), (BODY, 4.0))
NETWORKS = ("regression", "teacher", "generator")


def figure(name: str, case: Case, problem: Problem, dose_gy: Tensor) -> float:
    """The figure that a wish is for: an organ's mean dose in Gy, or the Paddick index for the body."""
    assert isinstance(problem.objective, PlanObjective)
    dvhs = {key: Dvh(dose_gy[v.index], v.volume_cc) for key, v in problem.objective.structures.items()}
    target, prescribed_gy = case.target_names[0], max(case.prescription_gy.values())
    scale = prescribed_gy / dvhs[target].dose_at_volume(0.5)
    if name == BODY:
        body = problem.objective.structures[BODY]
        in_target = torch.zeros_like(dose_gy, dtype=torch.bool)
        in_target[problem.objective.structures[target].index] = True
        isodose_gy = 0.95 * prescribed_gy
        return paddick_index(scale * dose_gy[body.index], in_target[body.index], isodose_gy, body.volume_cc)
    names = ["FemoralHeadLeft", "FemoralHeadRight"] if name == "FemoralHeads" else [name]
    return scale * statistics.mean(dvhs[one].mean_gy for one in names)


def measure(seed: int, size: str, runs: dict[str, Path]) -> list[dict[str, Any]]:
    """One row for each wish."""
    case = with_jaws(make_phantom(seed, size), JAW_MARGIN_MM)
    starts = {name: load_start(run) for name, run in runs.items()}

    def maps(problems: CaseProblems) -> dict[str, Tensor]:
        return {name: start(problems) for name, start in starts.items()}

    def reference(problems: CaseProblems) -> Tensor:
        return reference_planner().plan(problems.case).fluence_mu / problems.whole.scale_mu

    plain = CaseProblems(case)
    without = {"reference": reference(plain), **maps(plain)}
    rows = []
    for name, factor in WISHES:
        problems = CaseProblems(with_wishes(case, {name: factor}))
        problem = problems.whole
        found = {"reference": reference(problems), **maps(problems)}
        doses = {key: [problem.dose(x) for x in (without[key], found[key])] for key in found}
        rows.append(
            {
                "case": case.case_id,
                "wish": f"{name} x {factor:g}",
                "figures": {
                    key: [figure(name, case, problem, dose_gy) for dose_gy in two] for key, two in doses.items()
                },
                "objectives": {
                    key: [float(problem.objective(dose_gy)) for dose_gy in two] for key, two in doses.items()
                },
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print a row of the table for each wish: changes over the reference's of all phantoms, and objectives."""
    for wish in dict.fromkeys(row["wish"] for row in rows):
        own = [row for row in rows if row["wish"] == wish]
        change = {key: sum(row["figures"][key][1] - row["figures"][key][0] for row in own) for key in own[0]["figures"]}
        ratio = {
            key: statistics.median(row["objectives"][key][1] / row["objectives"][key][0] for row in own)
            for key in change
        }
        cells = [f"{change['reference'] / len(own):.2g} | {ratio['reference']:.2f}"]
        cells += [f"{change[key] / change['reference']:.2f} | {ratio[key]:.2f}" for key in NETWORKS]
        print(f"| {wish} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(__doc__, NETWORKS, range(160, 170), measure, show)
