"""Trained recipes as planners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.l2o.learned import LearnedOptimizer
from lightning_vmat.l2o.optimizer import Optimizer
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.networks.bev_conditioning import bev_channels
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.members import BUDGET, learned_planner
from lightning_vmat.planning.problem import VOXELS
from lightning_vmat.planning.sequenced import SequencedPlanner, Start
from lightning_vmat.recipes.learned_optimizer import LearnedOptimization
from lightning_vmat.recipes.loading import check_structures, condition_structures, condition_wishes, load_recipe

EVALUATIONS = 10  # of a hand-made optimizer that follows a generator


def recipe_planner(
    run: Path,
    voxels: int = VOXELS,
    seed: int = 0,
    progress: bool = False,
    optimizer: Optimizer[Any] | None = None,
    budget: int = BUDGET,
) -> SequencedPlanner:
    """The planner that a trained recipe makes: its fluence, the learned optimizer if it has one, and leaf sequencing.

    Args:
        run: run directory or checkpoint of the recipe.
        voxels: size of the voxel sample.
        seed: of the voxel sample and of the generator's noise.
        progress: show progress bars.
        optimizer: in place of the recipe's own.
        budget: dose evaluations in all.

    Raises:
        ValueError: no such run, a generator with other condition channels than the run's, or a budget too small.
    """
    recipe = load_recipe(run)
    structures, wishes = condition_structures(run), condition_wishes(run)
    evaluations, generate = EVALUATIONS if optimizer is not None else 0, recipe.generate
    if isinstance(recipe, LearnedOptimization):
        optimizer, evaluations, generate = optimizer or recipe.network, recipe.evaluations, recipe.start
        if recipe.generator_run is not None:
            check_structures(recipe.generator_run, structures, wishes)

    @torch.no_grad()
    def start(case: Case, problem: Problem) -> Float[Tensor, "control_point leaf_pair beamlet"]:
        if not any(name in case.structures for name in structures):
            raise ValueError(f"case {case.case_id}: none of {', '.join(structures)}, which {run} was trained to see")
        batch = PlanBatch(
            case_ids=(case.case_id,),
            case_dirs=(Path(case.case_id),),
            condition=bev_channels(case, structures, wishes)[None],
            fluence=None,
            scale_mu=torch.tensor([problem.scale_mu]),
            problems=(problem,),
        )
        return generate(batch, seed)[0]

    named: Start = start
    return learned_planner(named, optimizer, voxels, seed, evaluations, budget, progress)


def learned_optimizer(run: Path) -> LearnedOptimizer:
    """The optimizer alone of a trained recipe, which takes any case and start.

    Raises:
        ValueError: no such run, or one of another recipe.
    """
    recipe = load_recipe(run)
    if not isinstance(recipe, LearnedOptimization):
        raise ValueError(f"run {run}: holds a {type(recipe).__name__}, expected a LearnedOptimization")
    return recipe.network
