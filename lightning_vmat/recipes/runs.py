"""The files of a trained run: checkpoint, configuration, and the condition of its network. Independent of Lightning."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.networks.bev_conditioning import ChannelSettings
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


def channel_settings(run: Path) -> ChannelSettings:
    """Returns what a run's network sees of a case.

    Raises:
        ValueError: a configuration without `data.structures`, or with settings of the wrong type.
    """
    config = find_config(Path(run))
    try:
        return ChannelSettings.of(read_mapping(config)["data"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"configuration {config}: no data.structures: {error}") from error
    except ValueError as error:
        raise ValueError(f"configuration {config}: {error}") from error


def check_channels(run: str | Path, given: ChannelSettings) -> None:
    """Checks that a run's network gets the condition channels with which it was trained.

    Raises:
        ValueError: other structures or wishes, another order, or other channels of arcs or optimised fluence.
    """
    its = channel_settings(Path(run))
    for field in fields(its):
        found, expected = getattr(given, field.name), getattr(its, field.name)
        if found != expected:
            raise ValueError(
                f"data.{field.name} {yaml_text(found)}: expected {yaml_text(expected)} as in the run {run}"
            )


def yaml_text(value: object) -> str:
    """Returns a setting as it stands in a configuration."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(value)}]" if isinstance(value, list | tuple) else str(value)
