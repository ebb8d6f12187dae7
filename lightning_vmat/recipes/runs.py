"""The files of a trained run: checkpoint, configuration, and the condition of its network. Independent of Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.recipes.weights import CONFIG_FILE, WEIGHTS_FILE, shipped_weights

CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", WEIGHTS_FILE)  # the first that exists


def find_checkpoint(path: Path) -> Path:
    """Returns the checkpoint of a run directory, a path of a checkpoint or a name of shipped weights.

    Raises:
        ValueError: no checkpoint.
    """
    folder = _resolve(path)
    if folder.is_file():
        return folder
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"checkpoint {path}: expected a .ckpt file, a run directory with {' or '.join(CHECKPOINTS)}, or one of the "
        f"shipped weights ({', '.join(shipped_weights()) or 'none'})"
    )


def _resolve(path: Path) -> Path:
    """Returns the path if it exists, else the folder of the shipped weights that it names, if any."""
    return path if path.exists() else shipped_weights().get(str(path), path)


def find_config(path: Path) -> Path:
    """Returns the configuration of a run directory or weights, or of a checkpoint in them.

    Raises:
        ValueError: no configuration.
    """
    path = _resolve(path)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    raise ValueError(f"checkpoint {path}: no {CONFIG_FILE} in its folder or the folder above")


def condition_structures(run: Path) -> list[str]:
    """Returns the structures that condition a run's network, in the order of its channels.

    Raises:
        ValueError: a configuration without them.
    """
    config = find_config(Path(run))
    try:
        return [str(name) for name in read_mapping(config)["data"]["structures"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"configuration {config}: no data.structures: {error}") from error


def condition_wishes(run: Path) -> bool:
    """Whether wishes condition a run's network; False if its configuration does not mention them.

    Raises:
        ValueError: a value that is neither true nor false.
    """
    config = find_config(Path(run))
    try:
        wishes = read_mapping(config)["data"].get("wishes", False)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"configuration {config}: no data: {error}") from error
    if not isinstance(wishes, bool):
        raise ValueError(f"configuration {config}: data.wishes is {wishes!r}, expected true or false")
    return wishes


def check_structures(run: str | Path, structures: Sequence[str], wishes: bool = False) -> None:
    """Checks that a run's network gets the condition channels with which it was trained.

    Raises:
        ValueError: other structures or another order, or a different use of wishes.
    """
    its = condition_structures(Path(run))
    if its != list(structures):
        raise ValueError(f"data.structures {list(structures)}: expected {its} as in the run {run}")
    if wishes != (sees := condition_wishes(Path(run))):
        raise ValueError(f"data.wishes {str(wishes).lower()}: expected {str(sees).lower()} as in the run {run}")
