"""Loads a trained recipe from its run: rebuilt from the saved configuration, weights read without unpickling."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning import Trainer

from lightning_vmat.data.datamodule import CohortDataModule
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.recipes.base import PlanRecipe
from lightning_vmat.recipes.runs import check_channels, find_checkpoint, find_config
from lightning_vmat.recipes.weights import WEIGHTS_FILE, read_weights


def load_recipe(path: str | Path) -> PlanRecipe:
    """Loads the recipe of a run, in evaluation mode on the CPU.

    Args:
        path: a run directory (its best checkpoint, else its last), a checkpoint in one, a folder of weights, or the
            name of shipped weights.

    Raises:
        ValueError: no checkpoint or no configuration, or they do not fit together.
    """
    checkpoint = find_checkpoint(Path(path))
    config = find_config(checkpoint)
    recipe = build_recipe(config)
    try:
        if checkpoint.name == WEIGHTS_FILE:
            recipe.load_state_dict(read_weights(checkpoint, recipe))
        else:
            saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
            recipe.load_state_dict(saved["state_dict"])
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"checkpoint {checkpoint}: does not hold the recipe of {config}: {why}") from error
    return recipe.eval()


def build_recipe(config: Path) -> PlanRecipe:
    """Builds the untrained recipe that the `model` section of a run's configuration describes.

    Raises:
        ValueError: a file that is not such a configuration.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(PlanRecipe, "model", required=True)
    try:
        model = read_mapping(config)["model"]
        return parser.instantiate(parser.parse_object({"model": model})).model  # type: ignore[no-any-return]
    except (KeyError, TypeError, ArgumentError) as error:
        raise ValueError(f"configuration {config}: no recipe: {' '.join(str(error).split())[:300]}") from error


def check_condition(run: str | Path, trainer: Trainer) -> None:
    """Calls `check_channels` for the cohort of a trainer; does nothing without a cohort."""
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, CohortDataModule):
        check_channels(run, data.channels)
