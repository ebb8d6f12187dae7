"""Planners of trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.planning.planners import BUDGET, learned_planner
from lightning_vmat.planning.problem import VOXELS
from lightning_vmat.planning.staged import SequencedPlanner
from lightning_vmat.recipes.trained import RECIPES, learned_optimizer, load_start, read_run

EVALUATIONS = 10  # of a hand-designed optimizer after a generator


def recipe_planner(
    run: Path,
    voxels: int = VOXELS,
    seed: int = 0,
    progress: bool = False,
    optimizer: Optimizer[Any] | None = None,
    budget: int = BUDGET,
) -> SequencedPlanner:
    """Returns the planner of a trained run: its fluence, an optimizer if there is one, sequencing, and apertures.

    Args:
        run: run directory, checkpoint, folder of weights or name of shipped weights.
        voxels: size of the voxel sample.
        seed: seed of the voxel sample and the generator's noise.
        progress: show progress bars.
        optimizer: fluence optimizer in place of the run's own.
        budget: total number of dose evaluations.

    Raises:
        ValueError: no such run, a generator with other condition channels than the run's, or a budget too small.
    """
    start, files = load_start(run, seed), read_run(run)
    evaluations = EVALUATIONS if optimizer is not None else 0
    if files.class_path == RECIPES["learned"]:
        evaluations = int(files.number("evaluations", EVALUATIONS))
        optimizer = optimizer or learned_optimizer(run)
    seen = start.channels.fluence_evaluations
    return learned_planner(start, optimizer, voxels, seed, evaluations, budget, progress, seen)
