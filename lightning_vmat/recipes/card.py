"""The card of a run's weights: how they were made, and figures that identify them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.data.batch import PlanBatch
from lightning_vmat.data.cohort import MANIFEST_FILE, Cohort, read_cohort
from lightning_vmat.data.packed import unpacked
from lightning_vmat.data.ray_cache import RayCache
from lightning_vmat.data.transforms import BuildCondition, LoadCase, item_transform
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.objectives.protocol import protocol_checksum
from lightning_vmat.progress import track
from lightning_vmat.recipes.base import PlanRecipe, fluence_error
from lightning_vmat.recipes.likeness import condition_features
from lightning_vmat.recipes.runs import find_checkpoint
from lightning_vmat.recipes.weights import WEIGHTS_FILE

CHECKED_CASES = 2  # number of validation cases whose figures a card has
TRAINER_KEYS = ("max_epochs", "accumulate_grad_batches", "gradient_clip_val", "callbacks")  # that affect the weights
THROUGHPUT = "throughput/cases_per_s"


def describe(run: Path, config: dict[str, Any], recipe: PlanRecipe) -> dict[str, Any]:
    """Returns the contents of the card of a run's weights.

    Args:
        run: run directory.
        config: configuration of the run.
        recipe: the trained recipe.
    """
    trained = _checkpoint(run)  # refuses before a cohort is unpacked, which takes minutes
    cohort = read_cohort(unpacked(Path(config["data"]["cohort"])))
    manifest = read_mapping(cohort.root / MANIFEST_FILE)
    used = sum(p.numel() for name, p in recipe.named_parameters() if not name.startswith(recipe.TRAINING_ONLY))
    return {
        "recipe": type(recipe).__name__,
        "use": "research on planning; not for treatment",
        "parameters": used,
        "seed": config.get("seed_everything"),
        **trained,
        "hours_of_whole_run": training_hours(run, len(cohort.split["train"])),
        "trainer": {key: config["trainer"].get(key) for key in TRAINER_KEYS},
        "versions": {"lightning_vmat": __version__, "torch": torch.__version__.partition("+")[0]},
        "cohort": str(config["data"]["cohort"]),
        "cohort_manifest": {key: value for key, value in manifest.items() if key != "cases"},
        "cases": {part: len(names) for part, names in cohort.split.items()},
        "figures": case_figures(recipe, config["data"], cohort),
        # the manifest has those of the plans that it learned from
        "protocol_versions_of_figures": {
            name: protocol_checksum(name) for name in manifest.get("protocol_versions", {})
        },
    }


def case_figures(recipe: PlanRecipe, data: dict[str, Any], cohort: Cohort) -> dict[str, dict[str, float]]:
    """Returns objective and error of the generated fluence for the first validation cases, and `own_figures`.

    Args:
        recipe: the trained recipe.
        data: the run's `data` settings.
        cohort: the run's cohort.
    """
    transform = item_transform(ChannelSettings.of(data), data["voxels"], True, data.get("seed", 0))
    figures = {}
    for folder in cohort.folders("validation")[:CHECKED_CASES]:
        batch = PlanBatch.collate([transform({"case_dir": folder})])
        with torch.no_grad():
            x = recipe.generate(batch)
            row = {"objective": float(batch.objective(x)), **recipe.own_figures(batch)}
        if batch.fluence is not None:
            row["fluence_error"] = float(fluence_error(x, batch.fluence))
        figures[folder.name] = {name: round(value, 4) for name, value in row.items()}
    return figures


def seen_cases(data: dict[str, Any]) -> dict[str, Tensor]:
    """Returns the features of the training and validation cases, as the network sees them; see `likeness`.

    Args:
        data: the run's `data` settings.
    """
    cohort, cache_dir = read_cohort(unpacked(Path(data["cohort"]))), data.get("cache_dir")
    rays = None if cache_dir is None else RayCache(Path(cache_dir))
    see = Compose([LoadCase(), BuildCondition(ChannelSettings.of(data), rays)])
    folders = [(part, folder) for part in ("train", "validation") for folder in cohort.folders(part)]
    features: dict[str, list[Tensor]] = {"train": [], "validation": []}
    for part, folder in track(folders, "cases seen"):
        features[part].append(condition_features(see({"case_dir": folder})["condition"].float()))
    return {part: torch.stack(rows) for part, rows in features.items()}


def training_hours(run: Path, cases: int) -> float | None:
    """Returns the hours of a run's training epochs by its logged throughput; None if it logged none.

    Args:
        run: run directory.
        cases: number of cases in an epoch.
    """
    rates = [
        float(row[THROUGHPUT])
        for path in run.glob("metrics*/**/metrics.csv")
        for row in csv.DictReader(path.read_text().splitlines())
        if row.get(THROUGHPUT)
    ]
    return round(sum(cases / rate for rate in rates) / 3600, 2) if rates else None


def _checkpoint(run: Path) -> dict[str, int]:
    """Returns the epochs and optimizer steps up to the checkpoint.

    Raises:
        ValueError: weights that are already released.
    """
    checkpoint = find_checkpoint(run)
    if checkpoint.name == WEIGHTS_FILE:
        raise ValueError(f"run {run}: holds released weights, expected a run directory")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {"epochs_to_checkpoint": saved["epoch"] + 1, "optimizer_steps_to_checkpoint": saved["global_step"]}
