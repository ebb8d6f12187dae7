"""Released weights: a folder with a run's weights (safetensors), the configuration for planning, and a card."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lightning_vmat.cases.plan_files import same_bytes
from lightning_vmat.files.atomic import atomic_folder
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.plan.case import Case

if TYPE_CHECKING:
    from lightning_vmat.recipes.base import PlanRecipe

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "weights.safetensors", "config.yaml", "card.yaml"
SEEN_FILE = "seen_cases.safetensors"  # features of the cases of the training, see `likeness`
FAMILY = "prostate_wished"  # of the shipped weights for prostate cases
SECTIONS = ("seed_everything", "model", "data")  # sections of a run's configuration that are released


def shipped_weights() -> dict[str, Path]:
    """Returns the folders of the weights in the package by name, such as `prostate_wished/generator`."""
    root = Path(str(resources.files("lightning_vmat"))) / "weights"
    return {str(path.parent.relative_to(root)): path.parent for path in sorted(root.glob(f"*/*/{WEIGHTS_FILE}"))}


def default_weights(recipe: str, case: Case | None = None) -> Path:
    """Returns the name of the shipped weights that a planner uses by default.

    Args:
        recipe: such as `regression`.
        case: the weights are those that know most of its structures; None for those of prostate cases.
    """
    best, most = f"{FAMILY}/{recipe}", 0
    if case is None:
        return Path(best)
    for name, folder in shipped_weights().items():
        if name.endswith(f"/{recipe}"):
            structures = read_mapping(folder / CONFIG_FILE)["data"]["structures"]
            known = len(case.structures.keys() & set(structures))
            best, most = (name, known) if known > most else (best, most)
    return Path(best)


def write_weights(
    recipe: PlanRecipe,
    config: dict[str, Any],
    card: dict[str, Any],
    out: Path,
    seen: dict[str, Tensor] | None = None,
) -> None:
    """Writes the folder atomically.

    Args:
        recipe: the trained recipe; weights that only training needs are left out.
        config: the run's whole configuration.
        card: contents of the card.
        out: the folder, which must not exist.
        seen: features of the cases of the training, see `likeness`; None to leave them out.
    """
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in recipe.state_dict().items()
        if not name.startswith(recipe.TRAINING_ONLY)
    }
    with atomic_folder(out, replace=False) as draft:
        (draft / WEIGHTS_FILE).write_bytes(same_bytes(state, {"recipe": type(recipe).__name__}))
        if seen is not None:
            (draft / SEEN_FILE).write_bytes(same_bytes(seen, {}))
        kept = {name: config[name] for name in SECTIONS if name in config}
        if "data" in kept:
            kept["data"] = kept["data"] | {"cache_dir": None}  # a folder of the machine that trained
        (draft / CONFIG_FILE).write_text(yaml.safe_dump(kept, sort_keys=False))
        (draft / CARD_FILE).write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120))


def read_weights(path: Path, recipe: PlanRecipe) -> dict[str, Tensor]:
    """Returns the state of a recipe from such a file; weights that only training needs are those of `recipe`.

    Raises:
        ValueError: a file that is not safetensors.
    """
    stored = read_tensors(path)
    spare = {name: value for name, value in recipe.state_dict().items() if name.startswith(recipe.TRAINING_ONLY)}
    return spare | stored


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file.

    Raises:
        ValueError: a file that is not safetensors.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({' '.join(str(error).split())})") from error
