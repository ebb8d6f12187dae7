"""YAML files of keys and values: read with one-line errors, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from lightning_vmat.files.atomic import atomic_file


def read_mapping(path: Path | Traversable, where: str | None = None) -> dict[str, Any]:
    """Read the keys and values of a YAML file.

    Args:
        path: path of the file.
        where: name of the file in errors; its path if None.

    Raises:
        ValueError: not text, not YAML, or not keys and values.
        OSError: the file cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{where or path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where or path}: expected keys and values")
    return content


def write_mapping(path: Path, content: Mapping[str, object]) -> None:
    """Write keys and values, in their order."""
    with atomic_file(path) as draft:
        draft.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
