"""The files of a trained run: its checkpoint, its configuration, and what its network sees. Needs no Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.recipes.weights import CONFIG_FILE, WEIGHTS_FILE, shipped_weights

CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", WEIGHTS_FILE)  # the first that exists


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a run directory, a path of a checkpoint or a name of shipped weights stands for.

    Raises:
        ValueError: there is none.
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
    """The folder of shipped weights, where that is what a path names and nothing is there."""
    return path if path.exists() else shipped_weights().get(str(path), path)


def find_config(path: Path) -> Path:
    """The configuration of a run directory or weights, or of a checkpoint inside them.

    Raises:
        ValueError: there is none.
    """
    path = _resolve(path)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / CONFIG_FILE).is_file():
            return folder / CONFIG_FILE
    raise ValueError(f"checkpoint {path}: no {CONFIG_FILE} beside it or in the folder above")


def condition_structures(run: Path) -> list[str]:
    """The structures that condition a run's network, in their order.

    Raises:
        ValueError: a configuration that does not say.
    """
    config = find_config(Path(run))
    try:
        return [str(name) for name in read_mapping(config)["data"]["structures"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"configuration {config}: no data.structures: {error}") from error


def condition_wishes(run: Path) -> bool:
    """Whether wishes condition a run's network; not where its configuration does not say.

    Raises:
        ValueError: a configuration that says neither true nor false.
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
    """Make sure that a run's network is given the condition channels that it learnt from.

    Raises:
        ValueError: other structures, or in another order, or wishes where it saw none, or none where it saw them.
    """
    its = condition_structures(Path(run))
    if its != list(structures):
        raise ValueError(f"data.structures {list(structures)}: expected {its} as in the run {run}")
    if wishes != (sees := condition_wishes(Path(run))):
        raise ValueError(f"data.wishes {str(wishes).lower()}: expected {str(sees).lower()} as in the run {run}")
