"""Atomic writes: a file or folder appears whole or not at all, also on a full disk or after an interrupt."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Write a folder atomically: yields a hidden sibling folder, which is renamed if the block succeeds, else removed.

    Args:
        folder: final path of the folder.
        replace: replace an existing folder of files. One that holds other folders is refused:
            a case or a home directory is not the result of an earlier run.

    Raises:
        ValueError: the folder exists already, is not empty and is not to be replaced.
    """
    folder = Path(os.path.realpath(folder))
    check_free(folder, replace)
    with _folder_for(folder):
        with _errors_name(folder, folder.parent):
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with _errors_name(folder, draft):
                yield draft
                draft.chmod(0o755)
                _put_in_place(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a hidden sibling path with the same suffixes, renamed if the block succeeds."""
    path = Path(path).absolute()
    draft = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")  # processes of two machines may share a number
    with _folder_for(path):
        try:
            with _errors_name(path, draft):
                yield draft
                draft.chmod(0o644)
                os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def check_free(folder: Path, replace: bool = False) -> None:
    """Check that a folder may be written; see `atomic_folder`.

    Raises:
        ValueError: the folder exists already, is not empty and is not to be replaced.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (not replace and any(folder.iterdir())):
        raise ValueError(f"{folder}: exists already, expected a new folder")
    for inner in folder.iterdir():
        if inner.is_dir():
            raise ValueError(f"{folder}: holds the folder {inner.name}, expected a folder with files only")


def check_file(path: Path | None) -> None:
    """Check, before its content is computed, that a file may be written; see `atomic_file`. None for no file.

    Raises:
        ValueError: the path is a folder.
    """
    if path is not None and path.is_dir():
        raise ValueError(f"{path}: a folder, expected a file to write")


def _put_in_place(draft: Path, folder: Path) -> None:
    """Rename the draft. An existing folder is moved aside first, and moved back if this fails."""
    aside = draft.with_name(f"{draft.name}.old")
    try:
        if folder.exists():
            os.replace(folder, aside)
        os.replace(draft, folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _folder_for(path: Path) -> Iterator[None]:
    """Make the parent folders of a path; remove the new ones again if the block fails."""
    new = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for parent in new:
                parent.rmdir()
        raise


@contextmanager
def _errors_name(path: Path, draft: Path) -> Iterator[None]:
    """Give errors of the file system that name no file (a full disk) or name the draft the final path."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(draft):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
