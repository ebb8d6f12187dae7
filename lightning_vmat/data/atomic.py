"""Folders and files that appear whole or not at all, also on a full disk or after an interrupt."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A hidden sibling folder to write into; it takes its name when the block ends well, and vanishes otherwise.

    Args:
        folder: where it shall be.
        replace: take the place of a folder that is there already.

    Raises:
        ValueError: the folder exists already, is not empty and is not to be replaced.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not replace)):
        raise ValueError(f"{folder}: exists already, expected a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _errors_name(folder):
            yield draft
            draft.chmod(0o755)
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A hidden sibling path to write to, with the same suffixes; it takes its name when the block ends well."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with _errors_name(path):
            yield draft
            draft.chmod(0o644)
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _errors_name(path: Path) -> Iterator[None]:
    """An error of the file system that names no file (a full disk) comes out with this path."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
