"""The planners by name."""

from __future__ import annotations

from typing import Any

from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.alternating import AlternatingSequencing
from lightning_vmat.planning.aperture_optimization import ApertureOptimization
from lightning_vmat.planning.planner import Planner
from lightning_vmat.planning.sequenced import SequencedPlanner, Start
from lightning_vmat.planning.started import DeliveredStart, PolishingPlanner

POLISH = 100  # dose evaluations of aperture optimization behind a generator: what 10 s on two cores allow at base size

OPTIMIZERS: dict[str, Optimizer[Any]] = {
    "lbfgs": LBFGS(),
    "adam": Adam(learning_rate=0.05, beta_square=0.95),
    "accelerated": AcceleratedProjectedGradient(),
}
"""Hand-made fluence optimizers, the best (L-BFGS: within 1 %) in a search: `tests/benchmarks/tune_optimizers.py`."""


def fluence_planner(
    optimizer: Optimizer[Any] = LBFGS(),  # noqa: B008 -- holds settings only
    voxels: int = 15000,
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
    voxels: int = 15000,
    seed: int = 0,
    fluence_evaluations: int = 20,
    rounds: int = 35,
    aperture_evaluations: int = 150,
    progress: bool = False,
) -> SequencedPlanner:
    """Fluence optimization, alternating sequencing, aperture optimization: slow and good; makes the training plans."""
    return SequencedPlanner(
        optimizer=LBFGS(),
        evaluations=fluence_evaluations,
        alternating=AlternatingSequencing(rounds, progress=progress),
        apertures=ApertureOptimization(iterations=aperture_evaluations, progress=progress),
        voxels=voxels,
        seed=seed,
    )


def learned_planner(
    start: Start,
    optimizer: Optimizer[Any] | None,
    voxels: int,
    seed: int,
    fluence_evaluations: int,
    aperture_evaluations: int,
    progress: bool = False,
) -> SequencedPlanner:
    """A generator's fluence, a few inner steps of the learned optimizer, sequencing and a short polish.

    Args:
        start: the generator.
        optimizer: the learned optimizer; None to sequence the generator's map as it is.
        voxels: size of the voxel sample.
        seed: of the voxel sample.
        fluence_evaluations: dose evaluations of the learned optimizer.
        aperture_evaluations: dose evaluations of the polish; 0 to only sequence.
        progress: show progress bars.
    """
    apertures = ApertureOptimization(aperture_evaluations, leaf_step_mm=0.7, mu_step=0.006, progress=progress)
    return SequencedPlanner(start, optimizer, fluence_evaluations, apertures, voxels=voxels, seed=seed, pull=0.01)


def started_planner(
    name: str, given: Plan, voxels: int = 15000, seed: int = 0, aperture_evaluations: int = 250, progress: bool = False
) -> Planner:
    """The reference planner or one that stops at a fluence, from an existing plan.

    Args:
        name: `reference` to polish the plan's apertures, `fluence` or `fluence+adam` to optimise what it delivers.
        given: the plan, at the control points and on the rows of the cases to plan.
        voxels: size of the voxel sample.
        seed: of the voxel sample.
        aperture_evaluations: dose evaluations of the polish.
        progress: show a progress bar.

    Raises:
        ValueError: an optimizer that is none of `OPTIMIZERS`.
    """
    if name == "reference":
        gentle = ApertureOptimization(aperture_evaluations, leaf_step_mm=1.0, mu_step=0.025, progress=progress)
        return PolishingPlanner(given, gentle, voxels, seed)
    optimizer = find_optimizer(name.partition("+")[2] or "lbfgs")
    return SequencedPlanner(DeliveredStart(given), optimizer, evaluations=100, voxels=voxels, seed=seed)
