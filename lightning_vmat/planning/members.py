"""The planners by name."""

from __future__ import annotations

from typing import Any

from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.alternating import AlternatingSequencing
from lightning_vmat.planning.gradient_apertures import GradientApertures
from lightning_vmat.planning.planner import Planner
from lightning_vmat.planning.problem import VOXELS
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures
from lightning_vmat.planning.sequenced import PULL_EVALUATIONS, SequencedPlanner, Start
from lightning_vmat.planning.started import DeliveredStart, PolishingPlanner

BUDGET = 20
"""Dose evaluations of a quick planner, from its start to the deliverable plan."""

LEAST = 3
"""Dose evaluations that aperture optimization needs to set up and to make a step."""

COARSEST = 15_000
"""Voxels below which no stage of the reference planner uses a coarser sample."""

OPTIMIZERS: dict[str, Optimizer[Any]] = {
    "lbfgs": LBFGS(),
    "adam": Adam(learning_rate=0.05, beta_square=0.95),
    "accelerated": AcceleratedProjectedGradient(),
}
"""Hand-made fluence optimizers, the best (L-BFGS: within 1 %) in a search: `tests/benchmarks/tune_optimizers.py`."""


def fluence_planner(
    optimizer: Optimizer[Any] = LBFGS(),  # noqa: B008 -- holds settings only
    voxels: int = VOXELS,
    seed: int = 0,
    evaluations: int = 100,
) -> SequencedPlanner:
    """Fluence optimization alone: a bound that no linac delivers."""
    return SequencedPlanner(optimizer=optimizer, evaluations=evaluations, voxels=voxels, seed=seed)


def find_optimizer(name: str) -> Optimizer[Any]:
    """A hand-made optimizer by name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def reference_planner(
    voxels: int = VOXELS,
    seed: int = 0,
    fluence_evaluations: int = 20,
    rounds: int = 70,
    exploration_evaluations: int = 50,
    aperture_evaluations: int = 25,
    progress: bool = False,
) -> SequencedPlanner:
    """Slow and good; makes the training plans.

    Fluence optimization, alternating sequencing, aperture optimization in large steps and then by the quasi-Newton
    model. The slow alternation finds better basins than any aperture optimizer from the open field does. It needs to
    see the dose only roughly, so all but the last stage use half of the voxels.
    """
    return SequencedPlanner(
        optimizer=LBFGS(),
        evaluations=fluence_evaluations,
        alternating=AlternatingSequencing(rounds, progress=progress),
        exploration=GradientApertures(exploration_evaluations, leaf_step_mm=1.0, mu_step=0.025, progress=progress),
        apertures=QuasiNewtonApertures(aperture_evaluations, progress=progress),
        voxels=voxels,
        coarse_voxels=voxels // 2 if voxels > COARSEST else None,
        seed=seed,
    )


def conventional_planner(
    voxels: int = VOXELS, seed: int = 0, evaluations: int = BUDGET, progress: bool = False
) -> SequencedPlanner:
    """No learning, at the budget of the learned planners: the baseline that these must beat.

    The aperture of the open conformal field, improved by the aperture optimizer that all quick planners share.

    Args:
        voxels: size of the voxel sample.
        seed: of the voxel sample.
        evaluations: dose evaluations in all.
        progress: show a progress bar.
    """
    return SequencedPlanner(apertures=QuasiNewtonApertures(evaluations, progress=progress), voxels=voxels, seed=seed)


def learned_planner(
    start: Start,
    optimizer: Optimizer[Any] | None,
    voxels: int,
    seed: int,
    fluence_evaluations: int,
    evaluations: int = BUDGET,
    progress: bool = False,
) -> SequencedPlanner:
    """A generator's fluence, a few steps of a fluence optimizer, sequencing, and aperture optimization.

    Args:
        start: the generator.
        optimizer: the fluence optimizer; None to sequence the generator's map as it is.
        voxels: size of the voxel sample.
        seed: of the voxel sample.
        fluence_evaluations: dose evaluations of the fluence optimizer.
        evaluations: dose evaluations in all.
        progress: show progress bars.

    Raises:
        ValueError: a budget that leaves nothing for the apertures.
    """
    left = evaluations - (fluence_evaluations + PULL_EVALUATIONS if optimizer is not None else 0)
    if left < LEAST:
        raise ValueError(f"evaluations {evaluations}: expected at least {evaluations - left + LEAST}")
    apertures = QuasiNewtonApertures(left, progress=progress)
    return SequencedPlanner(start, optimizer, fluence_evaluations, apertures, voxels=voxels, seed=seed, pull=0.01)


def started_planner(
    name: str, given: Plan, voxels: int = VOXELS, seed: int = 0, aperture_evaluations: int = 60, progress: bool = False
) -> Planner:
    """The reference planner or one that stops at a fluence, from an existing plan.

    Args:
        name: `reference` to improve the plan's apertures, `fluence` or `fluence+adam` to optimise what it delivers.
        given: the plan, at the control points and on the rows of the cases to plan.
        voxels: size of the voxel sample.
        seed: of the voxel sample.
        aperture_evaluations: dose evaluations of aperture optimization.
        progress: show a progress bar.

    Raises:
        ValueError: an optimizer that is none of `OPTIMIZERS`.
    """
    if name == "reference":
        return PolishingPlanner(given, QuasiNewtonApertures(aperture_evaluations, progress=progress), voxels, seed)
    optimizer = find_optimizer(name.partition("+")[2] or "lbfgs")
    return SequencedPlanner(DeliveredStart(given), optimizer, evaluations=100, voxels=voxels, seed=seed)
