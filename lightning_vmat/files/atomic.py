"""Folders and files that appear whole or not at all, also on a full disk or after an interrupt."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A hidden sibling folder to write into; it takes its name when the block ends well, and vanishes otherwise.

    Args:
        folder: where it shall be.
        replace: take the place of a folder of files that is there already. One that holds other folders is refused:
            a case or somebody's home is not the result of an earlier run.

    Raises:
        ValueError: the folder exists already, is not empty and is not to be replaced.
    """
    folder = Path(os.path.realpath(folder))
    _check_free(folder, replace)
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
    """A hidden sibling path to write to, with the same suffixes; it takes its name when the block ends well."""
    path = Path(path).absolute()
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    with _folder_for(path):
        try:
            with _errors_name(path, draft):
                yield draft
                draft.chmod(0o644)
                os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _check_free(folder: Path, replace: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (not replace and any(folder.iterdir())):
        raise ValueError(f"{folder}: exists already, expected a new folder")
    for inner in folder.iterdir():
        if inner.is_dir():
            raise ValueError(f"{folder}: holds the folder {inner.name}, expected nothing but files to replace")


def _put_in_place(draft: Path, folder: Path) -> None:
    """Give the draft its name; a folder that has it steps aside first, and back if that fails."""
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
    """Make the folders around a path; those that were not there go again if the block fails."""
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
    """An error of the file system that names no file (a full disk), or one of the draft, comes out with this path."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(draft):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
