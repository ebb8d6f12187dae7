"""What moving leaves and the quasi-Newton model cost beside a dose evaluation, on one thread, medians of CPU time.

python tests/benchmarks/aperture_cost.py --json tests/benchmarks/aperture_cost.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.plan.aperture import Plan, coverage, delivered_fluence
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.jaws import with_jaws
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.problem import VOXELS, build_problem
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sequencing import sequence

SEED = 900_101  # of no cohort


def still_fluence(left: torch.Tensor, right: torch.Tensor, mu: torch.Tensor, setup: BeamSetup) -> torch.Tensor:
    """The fluence of leaves that stand still in the middle of each sector."""
    half_gap_mm, leak = setup.machine.dosimetric_leaf_gap_mm / 2, setup.machine.leaf_transmission
    return mu[:, None, None] * (leak + (1 - leak) * coverage(left - half_gap_mm, right + half_gap_mm, setup.beamlets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = with_jaws(make_phantom(SEED, "base"), 8.0)
    problem = build_problem(case, VOXELS)
    plan = project_to_limits(sequence(problem.open_field * problem.scale_mu, case.beamlets), case.beam_setup)

    def gradient(fluence: Callable[..., torch.Tensor]) -> None:
        left, right, mu = (value.clone().requires_grad_() for value in (plan.left_mm, plan.right_mm, plan.mu))
        fluence_mu = fluence(left, right, mu, case.beam_setup)
        _, by_fluence, _ = problem.evaluate(fluence_mu.detach() / problem.scale_mu)
        torch.autograd.grad(fluence_mu, (left, right, mu), by_fluence)

    def optimise(optimizer: QuasiNewtonApertures) -> Plan:
        return optimizer.refine(case.beam_setup, problem, plan, Trace())

    work: dict[str, Callable[[], object]] = {
        "dose_evaluation_s": lambda: problem.evaluate(problem.open_field),
        "gradient_still_leaves_s": lambda: gradient(still_fluence),
        "gradient_moving_leaves_s": lambda: gradient(delivered_fluence),
        "without_surrogate_20_evaluations_s": lambda: optimise(QuasiNewtonApertures(20, surrogate=None)),
        "as_in_planners_20_evaluations_s": lambda: optimise(QuasiNewtonApertures(20)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(arguments.repeats):
        for name, run in work.items():
            begin = time.process_time()
            run()
            seconds[name].append(time.process_time() - begin)
    figures = {name: statistics.median(values) for name, values in seconds.items()}
    figures["moving_over_still"] = figures["gradient_moving_leaves_s"] / figures["gradient_still_leaves_s"]
    for name in ("without_surrogate", "as_in_planners"):
        twenty_s = figures[f"{name}_20_evaluations_s"]
        figures[f"{name}_over_dose_evaluations"] = twenty_s / (20 * figures["dose_evaluation_s"])
    figures["voxels"] = VOXELS
    arguments.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
