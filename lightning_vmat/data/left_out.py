"""Unreadable sources of a cohort: a note for each, and a list of all once the cohort is complete."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.files.yaml_file import write_mapping

LEFT_OUT_FILE, NOTES = "left_out.yaml", ".left_out"


def note(root: Path, name: str, why: str) -> None:
    """Write why a source was left out; a file for each, because several machines may work on one cohort."""
    with atomic_file(root / NOTES / name) as draft:
        draft.write_text(why, encoding="utf-8")


def forget(root: Path, name: str) -> None:
    """Remove the note of a source that could be read later."""
    (root / NOTES / name).unlink(missing_ok=True)


def left_out(root: Path) -> dict[str, str]:
    """Reasons of all left-out sources, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((root / NOTES).glob("[!.]*"))}


def write_list(root: Path, reasons: Mapping[str, str]) -> None:
    """Write `left_out.yaml`, or remove it if nothing was left out."""
    if not reasons:
        clear(root)
        return
    write_mapping(root / LEFT_OUT_FILE, reasons)


def clear(root: Path) -> None:
    """Remove the notes and the list."""
    shutil.rmtree(root / NOTES, ignore_errors=True)
    (root / LEFT_OUT_FILE).unlink(missing_ok=True)
