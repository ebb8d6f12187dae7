"""The files of a trained run: checkpoint, configuration, and the condition of its network. Independent of Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def condition_wishes(run: Path) -> bool | list[str]:
    """Which wishes condition a run's network, see `bev_channels`; False if its configuration does not mention them.

    Raises:
        ValueError: a value that is neither true nor false nor a list of names.
    """
    config, wishes = _data_setting(run, "wishes")
    if isinstance(wishes, bool):
        return wishes
    if isinstance(wishes, list) and all(isinstance(name, str) for name in wishes):
        return wishes
    raise ValueError(f"configuration {config}: data.wishes is {wishes!r}, expected true, false or a list of names")


def condition_arcs(run: Path) -> bool:
    """Whether arcs condition a run's network, see `bev_channels`; False if its configuration does not mention them.

    Raises:
        ValueError: a value that is neither true nor false.
    """
    config, arcs = _data_setting(run, "arcs")
    if not isinstance(arcs, bool):
        raise ValueError(f"configuration {config}: data.arcs is {arcs!r}, expected true or false")
    return arcs


def _data_setting(run: Path, name: str) -> tuple[Path, Any]:
    """Returns the configuration of a run, and a setting of its data; False if that is left out."""
    config = find_config(Path(run))
    try:
        return config, read_mapping(config)["data"].get(name, False)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"configuration {config}: no data: {error}") from error


def yaml_text(value: bool | Sequence[str]) -> str:
    """Returns a setting as it stands in a configuration."""
    return str(value).lower() if isinstance(value, bool) else f"[{', '.join(value)}]"


def check_structures(
    run: str | Path, structures: Sequence[str], wishes: bool | Sequence[str] = False, arcs: bool = False
) -> None:
    """Checks that a run's network gets the condition channels with which it was trained.

    Raises:
        ValueError: other structures or wishes, another order, or a different use of arcs.
    """
    its = condition_structures(Path(run))
    if its != list(structures):
        raise ValueError(f"data.structures {list(structures)}: expected {its} as in the run {run}")
    given = {"wishes": wishes if isinstance(wishes, bool) else list(wishes), "arcs": arcs}
    for name, sees in (("wishes", condition_wishes(Path(run))), ("arcs", condition_arcs(Path(run)))):
        if given[name] != sees:
            raise ValueError(f"data.{name} {yaml_text(given[name])}: expected {yaml_text(sees)} as in the run {run}")
