"""Functions that make the planners, and the registry of fluence optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from lightning_vmat.l2o.baselines.accelerated_gradient import AcceleratedProjectedGradient
from lightning_vmat.l2o.baselines.adam import Adam
from lightning_vmat.l2o.baselines.lbfgs import LBFGS
from lightning_vmat.l2o.baselines.surrogate_lbfgs import SurrogateLBFGS
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.exploration import Exploration
from lightning_vmat.planning.from_plan import PolishingPlanner
from lightning_vmat.planning.problem import PART, SHARE, VOXELS
from lightning_vmat.planning.quasi_newton_apertures import QuasiNewtonApertures, StepCorrection
from lightning_vmat.planning.staged import LEAST, PULL_EVALUATIONS, SequencedPlanner, Start, open_start
from lightning_vmat.registry import check_name, find, import_object, is_import_path, register

AnyOptimizer = TypeVar("AnyOptimizer")

BUDGET = 20
"""Dose evaluations of a quick planner, from its start to the deliverable plan."""

MOST_ON_PART = 20
"""Dose evaluations on part of the voxels, at most."""

FEWEST_ON_PART = 500
"""Voxels of that part, at least."""

LEAST_FOR_FLUENCE = 15
"""Dose evaluations from which steps of a fluence optimizer before the exploration pay, and below which a learned
correction of the apertures pays; chosen on validation phantoms, see the results."""

OPTIMIZERS: dict[str, Optimizer[Any]] = {
    "lbfgs": LBFGS(),
    "surrogate": SurrogateLBFGS(),
    "adam": Adam(learning_rate=0.05, beta_square=0.95),
    "accelerated": AcceleratedProjectedGradient(),
}
"""Hand-designed fluence optimizers with the best settings (L-BFGS: within 1 %) of a search:
`tests/benchmarks/tune_optimizers.py`."""


def fluence_planner(
    optimizer: Optimizer[Any] = LBFGS(),  # noqa: B008 -- holds settings only
    voxels: int = VOXELS,
    seed: int = 0,
    evaluations: int = 100,
    start: Start = open_start,
) -> SequencedPlanner:
    """Returns the planner of fluence optimization alone: an ideal bound that no linac can deliver."""
    return SequencedPlanner(start, optimizer, evaluations, voxels=voxels, seed=seed)


def register_optimizer(name: str) -> Callable[[AnyOptimizer], AnyOptimizer]:
    """Registers a user's fluence optimizer for planners: `fluence+NAME`, `generator+NAME`.

    Decorates a class that needs no arguments and follows the protocol `l2o.optimizer.Optimizer`: `init(problem, x)`
    returns a state, `update(problem, state)` the state after one inner step of one dose evaluation. Its objects hold
    settings only. On a command line, its import path works without registration: `fluence+my_package.module.Class`.

    >>> from dataclasses import dataclass
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.l2o.baselines.adam import Adam
    >>> @vmat.register_optimizer("slow_adam")
    ... @dataclass(frozen=True)
    ... class SlowAdam(Adam):
    ...     learning_rate: float = 0.01
    >>> result = vmat.planner("fluence+slow_adam", voxels=300).plan(vmat.phantom(0, size="tiny"))
    >>> result.planner
    'fluence+slow_adam'

    Raises:
        ValueError: a bad name or one that is taken, or a class that is not an optimizer.
    """
    check_name("optimizer", name)

    def add(optimizer: AnyOptimizer) -> AnyOptimizer:
        made = _as_optimizer(name, optimizer)
        register("optimizer", OPTIMIZERS, name, made, type(made).__module__)
        return optimizer

    return add


def find_optimizer(name: str) -> Optimizer[Any]:
    """Returns a hand-designed or registered optimizer by name, or any other by its import path.

    Raises:
        ValueError: an unknown name, or an object that is not an optimizer.
    """
    if is_import_path(name):
        return _as_optimizer(name, import_object("optimizer", name))
    return find("optimizer", OPTIMIZERS, name)


def _as_optimizer(name: str, value: object) -> Optimizer[Any]:
    """Returns an optimizer, made with default settings if the value is a class."""
    try:
        optimizer = value() if isinstance(value, type) else value
    except TypeError as error:
        raise ValueError(f"optimizer {name}: expected a class that needs no arguments ({error})") from error
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"optimizer {name}: {type(optimizer).__name__} lacks init or update, expected an Optimizer")
    return optimizer


def reference_planner(
    voxels: int = VOXELS,
    seed: int = 0,
    fluence_evaluations: int = 20,
    rounds: int = 140,
    exploration_evaluations: int = 10,
    aperture_evaluations: int = 26,
    progress: bool = False,
) -> SequencedPlanner:
    """Returns the slow planner of high quality that makes the training plans.

    From the open field, exploration looks for a good local minimum, and aperture optimization goes to its end. Where
    exploration is cheaper or does not suit the case, aperture optimization gets more evaluations.
    """
    exploration = Exploration(rounds, fluence_evaluations, exploration_evaluations, sweeps=True, progress=progress)
    exploration = replace(exploration, budget=exploration.cost(voxels))
    on_part = part_evaluations_within(voxels, 2 * aperture_evaluations)
    return SequencedPlanner(
        exploration=exploration,
        apertures=QuasiNewtonApertures(progress=progress),
        part_evaluations=on_part,
        budget=exploration.budget + on_part * PART + aperture_evaluations,
        alone_budget=on_part * PART + 2 * aperture_evaluations,
        voxels=voxels,
        seed=seed,
    )


def conventional_planner(
    voxels: int = VOXELS, seed: int = 0, evaluations: int = BUDGET, progress: bool = False
) -> SequencedPlanner:
    """Returns the planner without learning at the budget of the learned ones: the baseline that these must beat.

    It starts from the open conformal field and uses the aperture optimizer that all planners share. From about 14 dose
    evaluations on, or where leaves are slow for the field, at most half of them pay for an exploration.

    Args:
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.
        evaluations: total number of dose evaluations.
        progress: show a progress bar.

    Raises:
        ValueError: too few evaluations for one step.
    """
    if evaluations < LEAST:
        raise ValueError(f"evaluations {evaluations}: expected at least {LEAST}")
    exploration = Exploration(140, 20, 5, budget=evaluations / 2, fewest_rounds=40, sweeps=True, progress=progress)
    return SequencedPlanner(
        exploration=exploration,
        apertures=QuasiNewtonApertures(progress=progress),
        part_evaluations=part_evaluations_within(voxels, evaluations),
        budget=evaluations,
        voxels=voxels,
        seed=seed,
    )


def learned_planner(
    start: Start,
    optimizer: Optimizer[Any] | None,
    voxels: int,
    seed: int,
    fluence_evaluations: int,
    evaluations: int = BUDGET,
    progress: bool = False,
    start_evaluations: int = 0,
    correction: StepCorrection | None = None,
) -> SequencedPlanner:
    """Returns the planner of a generator's fluence, a few optimizer steps, exploration and aperture optimization.

    A third of the evaluations goes to the optimizer's steps on the small problem (with a budget of at least
    `LEAST_FOR_FLUENCE`) and a short exploration that keeps the generator's pattern. If these are too few, or the
    sectors too wide, the optimizer's steps are on the whole problem and the fluence is sequenced once; with too few
    evaluations for that, the generator's map is.

    Args:
        start: the generator.
        optimizer: the fluence optimizer; None to sequence the generator's map directly.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.
        fluence_evaluations: dose evaluations of the fluence optimizer.
        evaluations: total number of dose evaluations.
        progress: show progress bars.
        start_evaluations: dose evaluations of the generator's condition, see `SequencedPlanner`.
        correction: learned correction of aperture optimization, for budgets below `LEAST_FOR_FLUENCE`; None for none.

    Raises:
        ValueError: a budget that leaves too few evaluations for the apertures.
    """
    before = start_evaluations * SHARE
    least = math.ceil(before + LEAST)
    if evaluations < least:
        raise ValueError(f"evaluations {evaluations}: expected at least {least}")
    exploration = Exploration(
        5,
        0,
        min(12, evaluations // 2),
        pull=2e-2,
        budget=(evaluations - before) / 3,
        fewest_rounds=1,
        progress=progress,
    )
    quick = evaluations < LEAST_FOR_FLUENCE
    if optimizer is not None and not quick:
        exploration = replace(exploration, fluence_evaluations=fluence_evaluations, optimizer=optimizer)
    if evaluations < before + fluence_evaluations + PULL_EVALUATIONS + LEAST:
        optimizer = None
    return SequencedPlanner(
        start,
        optimizer,
        fluence_evaluations,
        QuasiNewtonApertures(progress=progress, correction=correction if quick else None),
        part_evaluations_within(voxels, evaluations),
        exploration,
        budget=evaluations,
        voxels=voxels,
        seed=seed,
        pull=0.01,
        start_evaluations=start_evaluations,
    )


def part_evaluations_within(voxels: int, evaluations: int) -> int:
    """Returns the evaluations on part of the voxels for a budget; 0 where this part would be too small.

    Args:
        voxels: size of the whole sample.
        evaluations: the budget, in dose evaluations of the whole sample.
    """
    return min(MOST_ON_PART, evaluations) if PART * voxels >= FEWEST_ON_PART else 0


def polishing_planner(
    given: Plan, voxels: int = VOXELS, seed: int = 0, aperture_evaluations: int = 60, progress: bool = False
) -> PolishingPlanner:
    """Returns the planner that improves the apertures of an existing plan, like the reference planner's last stage.

    Args:
        given: the plan, with the control points and beamlet rows of the cases to plan.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.
        aperture_evaluations: dose evaluations of aperture optimization.
        progress: show a progress bar.
    """
    return PolishingPlanner(given, QuasiNewtonApertures(aperture_evaluations, progress=progress), voxels, seed)
