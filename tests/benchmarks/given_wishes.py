"""What several samples for one patient and one set of wishes are worth, beside several plans of the reference planner.

python tests/benchmarks/given_wishes.py --json tests/benchmarks/given_wishes.json

Held-out phantoms, each with wishes. The reference planner with other seeds of the voxel samples shows which maps are as
good as one another; recall and precision compare them with a network's samples of the same case and wishes. Then plans
with 20 dose evaluations in all, judged in the whole body: from single samples, from the best of four and of eight, each
judged by one forward projection (half an evaluation), from their mean, and from maps of networks to which the wishes
are not shown. About six minutes a phantom on one core.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from by_phantom import main
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.phantom.source import PhantomSource
from lightning_vmat.metrics.recall import CohortRecall
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.evaluation import body_objective
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.planners import conventional_planner, learned_planner, reference_planner
from lightning_vmat.planning.problem import VOXELS, CaseProblems
from lightning_vmat.planning.staged import KnownStart
from lightning_vmat.recipes.base import diversity
from lightning_vmat.recipes.trained import load_start

NETWORKS = ("teacher", "generator", "regression")
BUDGET, SAMPLES, PLANNED = 20, 8, 4  # dose evaluations of a plan, samples, and those of them that become plans
REFERENCE_SEEDS = (0, 10, 20, 30)  # a plan's samples of voxels have the next two seeds as well
Maps = Float[Tensor, "sample control_point leaf_pair beamlet"]


def planned(problems: CaseProblems, x: FluenceMap, start_evaluations: int, chosen_among: int = 0) -> FluenceMap:
    """Delivered fluence, MU, of a plan from a map.

    Args:
        problems: of the case.
        x: the map, over `scale_mu`.
        start_evaluations: of the small problem behind the map.
        chosen_among: number of maps of which one projection each found it to be the best.
    """
    budget = BUDGET - chosen_among // 2
    planner = learned_planner(KnownStart(x), None, VOXELS, 0, 0, budget, start_evaluations=start_evaluations)
    return planner.solve(problems, Trace()).fluence_mu


def variety(maps: Maps) -> float:
    """Mean difference of two maps over their mean fluence; 0 for a single map."""
    pairs = [diversity(a[None], b[None]).item() for i, a in enumerate(maps) for b in maps[:i]]
    return statistics.mean(pairs) if pairs else 0.0


def likeness(samples: Maps, reference: Maps) -> dict[str, float]:
    """Recall and precision given the case and its wishes, of as many samples as reference maps.

    Neighbourhoods reach to the nearest map of the own kind, so that samples of one and the same distribution have about
    0.5 of both.
    """
    if len(samples) < len(reference):
        return {}
    metric = CohortRecall(neighbours=1)
    metric.update(samples[: len(reference)], reference)
    return {name: float(share) for name, share in metric.compute().items()}


def measure(seed: int, size: str, runs: dict[str, Path]) -> list[dict[str, Any]]:
    """The row of one phantom."""
    case = PhantomSource(seed, size, wishes_share=1.0, jaw_margin_mm=8.0).load().case
    problems, unwished = CaseProblems(case), CaseProblems(case.with_settings(wishes={}))
    whole = problems.whole
    delivered = {f"reference {s}": reference_planner(seed=s).plan(case).fluence_mu for s in REFERENCE_SEEDS}
    reference = torch.stack(list(delivered.values())) / whole.scale_mu
    delivered["conventional"] = conventional_planner(evaluations=BUDGET).solve(problems, Trace()).fluence_mu
    maps: dict[str, dict[str, float]] = {"reference": {"variety": variety(reference)}}
    for name, run in runs.items():
        start = load_start(run)
        condition, before = start.condition(problems), start.channels.fluence_evaluations
        count = 1 if name == "regression" else SAMPLES
        samples = torch.stack([replace(start, seed=s).generate(condition, problems) for s in range(count)])
        maps[name] = {"variety": variety(samples), **likeness(samples, reference)}
        plans = [planned(problems, x, before) for x in samples[:PLANNED]]
        delivered |= {f"{name} sample {s}": fluence_mu for s, fluence_mu in enumerate(plans)}
        maps[name]["variety of the plans"] = variety(torch.stack(plans) / whole.scale_mu)
        unaware = start.generate(start.condition(unwished), problems)
        delivered[f"{name} without the wishes"] = planned(problems, unaware, before)
        if count == 1:
            continue
        values = [float(whole.value(x)) for x in samples]
        for among in (4, 8):
            best = samples[min(range(among), key=values.__getitem__)]
            delivered[f"{name} best of {among}"] = planned(problems, best, before, among)
        delivered[f"{name} mean of {count}"] = planned(problems, samples.mean(dim=0), before)
    objectives = body_objective(case, torch.stack(list(delivered.values()))).tolist()
    return [{"case": case.case_id, "maps": maps, "objectives": dict(zip(delivered, objectives, strict=True))}]


def show(rows: list[dict[str, Any]]) -> None:
    """Print means of the maps' figures; median and range of the objectives over the mean of the reference plans'."""
    for name in rows[0]["maps"]:
        figures = {key: statistics.mean(row["maps"][name][key] for row in rows) for key in rows[0]["maps"][name]}
        print(f"| {name} | {' | '.join(f'{key} {value:.2f}' for key, value in figures.items())} |")
    for name in rows[0]["objectives"]:
        over = []
        for row in rows:
            mean = statistics.mean(value for key, value in row["objectives"].items() if key.startswith("reference"))
            over.append(row["objectives"][name] / mean - 1)
        print(f"| {name} | {statistics.median(over):+.1%} | {min(over):+.1%} | {max(over):+.1%} |")


if __name__ == "__main__":
    main(__doc__, NETWORKS, range(190, 194), measure, show)
