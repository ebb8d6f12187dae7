"""The planners of the package by name."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from lightning_vmat.api.planner_settings import PlannerKind, PlannerSettings
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.from_plan import DeliveredStart
from lightning_vmat.planning.planner import Planner, PlannerByCase
from lightning_vmat.planning.planners import (
    conventional_planner,
    find_optimizer,
    fluence_planner,
    polishing_planner,
    reference_planner,
)
from lightning_vmat.planning.staged import SequencedPlanner, open_start

LEARNED, GENERATOR = "learned", "generator"


def _reference(settings: PlannerSettings) -> Planner:
    if isinstance(settings.start, Plan):
        return polishing_planner(settings.start, settings.voxels, settings.seed, progress=settings.progress)
    return reference_planner(voxels=settings.voxels, seed=settings.seed, progress=settings.progress)


def _conventional(settings: PlannerSettings) -> Planner:
    return conventional_planner(settings.voxels, settings.seed, settings.budget, settings.progress)


def _fluence(settings: PlannerSettings) -> Planner:
    if settings.run is not None and settings.optimizer != LEARNED:
        raise ValueError(f"run {settings.run}: planner {settings.name} does not take one, fluence+learned does")
    start = DeliveredStart(settings.start) if isinstance(settings.start, Plan) else open_start
    optimizer = _optimizer(settings.optimizer or "lbfgs", settings.run)
    return fluence_planner(optimizer, settings.voxels, settings.seed, start=start)


def _trained(recipe: str | None, settings: PlannerSettings) -> Planner:
    """A planner of a trained run: of the named recipe, or of any recipe if None."""
    from lightning_vmat.recipes.weights import default_weights

    if settings.run is not None:
        return _of_run(settings.run, recipe, settings)
    if recipe is None:
        raise ValueError(f"planner {settings.name}: expected a run")
    of_run = cache(partial(_of_run, recipe=recipe, settings=settings))
    of_run(default_weights(recipe))  # refuses settings out of range now
    return PlannerByCase(lambda case: of_run(default_weights(recipe, case)))


def _of_run(run: Path, recipe: str | None, settings: PlannerSettings) -> Planner:
    from lightning_vmat.recipes.planning import CarefulPlanner, recipe_planner
    from lightning_vmat.recipes.trained import check_recipe

    if recipe is not None:
        check_recipe(run, recipe)
    own = None if settings.optimizer is None else _optimizer(settings.optimizer, None)
    staged = recipe_planner(run, settings.voxels, settings.seed, settings.progress, own, settings.budget)
    if settings.when_unlike is None:
        return CarefulPlanner(staged)
    return CarefulPlanner(staged, _instead(settings), settings.when_unlike)


def _instead(settings: PlannerSettings) -> SequencedPlanner:
    """The planner without learning for cases that are unlike those of the training."""
    if settings.when_unlike == "reference":
        return reference_planner(settings.voxels, settings.seed, progress=settings.progress)
    if settings.when_unlike == "conventional":
        return conventional_planner(settings.voxels, settings.seed, settings.budget, settings.progress)
    raise ValueError(f"when_unlike {settings.when_unlike!r}: expected reference or conventional")


def _optimizer(name: str, run: Path | None) -> Optimizer[Any]:
    """A fluence optimizer by name; `learned` is the one of a run, or of the package."""
    if name != LEARNED:
        return find_optimizer(name)
    from lightning_vmat.recipes.trained import learned_optimizer
    from lightning_vmat.recipes.weights import default_weights

    return learned_optimizer(run or default_weights(LEARNED))


TRAINED = ("run", "optimizer", "evaluations", "when_unlike")

PLANNERS: dict[str, PlannerKind] = {
    "reference": PlannerKind(_reference, ("start",)),
    "conventional": PlannerKind(_conventional, ("evaluations",)),
    "fluence": PlannerKind(_fluence, ("start", "optimizer", "run")),
    **{name: PlannerKind(partial(_trained, name), TRAINED) for name in (LEARNED, GENERATOR, "teacher", "regression")},
    "recipe": PlannerKind(partial(_trained, None), TRAINED),
}
"""Name -> kind of planner; `register_planner` adds to it."""
