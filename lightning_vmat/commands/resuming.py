"""Finds the checkpoint from which `vmat fit` resumes a stopped run of the same settings."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_vmat.callbacks.run_directory import CONFIG_FILE, UNFINISHED_FILE
from lightning_vmat.files.yaml_file import read_mapping

IDENTITY = ("seed_everything", "model", "data")  # what may not change between the parts of a run; the trainer may
FREE = ("data.num_workers", "data.memory_gb", "data.cache_dir")  # how cases are loaded, not which


def stopped_at(run: Path, settings: Mapping[str, Any]) -> Path | None:
    """The newest checkpoint of a stopped run; None if there is nothing to resume.

    Args:
        run: the run directory.
        settings: the resolved configuration of the new run.

    Raises:
        ValueError: the run had other settings, or its newest checkpoint is damaged.
    """
    found = [*(run / "checkpoints").glob("last.ckpt"), *run.glob("hpc_ckpt_*.ckpt")]
    if not found or not (run / UNFINISHED_FILE).is_file() or not (run / CONFIG_FILE).is_file():
        return None
    try:
        earlier = read_mapping(run / CONFIG_FILE)
    except ValueError as error:
        raise ValueError(f"{error}; --resume false starts anew") from error
    for change in differences({k: earlier.get(k) for k in IDENTITY}, {k: settings.get(k) for k in IDENTITY}):
        raise ValueError(
            f"run {run}: stopped before its end, with another {change}; expected the same settings to resume it, "
            "--resume false to start anew, or another --trainer.default_root_dir"
        )
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    check_checkpoint(newest)
    return newest


def differences(earlier: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two configurations, as `key (was -> is)`."""
    if isinstance(earlier, Mapping) and isinstance(now, Mapping):
        for key in [*earlier, *(key for key in now if key not in earlier)]:
            yield from differences(earlier.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif earlier != now and name not in FREE:
        yield f"{name} ({earlier} -> {now})"


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that cannot be read, and name another one of its run that can.

    Raises:
        ValueError: there is no such file, or it is not a whole checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file, expected one that `vmat fit` wrote")
    if is_whole(path):
        return
    others = [path.parent / "previous.ckpt", *path.parent.glob("checkpoints/last.ckpt"), path.parent / "best.ckpt"]
    whole = [other for other in others if other != path and is_whole(other)]
    hint = f"; the one before it is intact: --ckpt_path {whole[0]}" if whole else ""
    raise ValueError(f"checkpoint {path}: not a checkpoint, or truncated; expected a file that `vmat fit` wrote{hint}")


def is_whole(path: Path) -> bool:
    """Whether a file is a zip archive, as torch writes them, all of whose contents match their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
