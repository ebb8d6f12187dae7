"""Partial figures of a long comparison, stored beside the final file until it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_vmat.files.atomic import atomic_file, check_file


@dataclass(frozen=True)
class PartialFile:
    """Figures of a run that may be stopped and continued.

    Args:
        final: path of the file that is written at the end.
        settings: settings of the comparison; figures of other settings are refused.
    """

    final: Path
    settings: Mapping[str, object]

    @property
    def path(self) -> Path:
        """Path of the partial file: the final path with `.partial` appended."""
        return self.final.with_name(f"{self.final.name}.partial")

    @property
    def plain(self) -> dict[str, Any]:
        """The settings after a round trip through JSON."""
        return dict(json.loads(json.dumps(dict(self.settings), default=str)))

    def read(self, names: Sequence[str], later: Sequence[str] = ()) -> list[Any] | None:
        """Read the named figures of a stopped run; None if there is none.

        Args:
            names: figures that the file must hold.
            later: figures that follow; empty in a file of an earlier version, which did not keep them.

        Raises:
            ValueError: an unreadable file, a file of other settings, or a folder in place of the final file.
        """
        check_file(self.final)
        if not self.path.is_file():
            return None
        try:
            kept = json.loads(self.path.read_text())
            found, figures = kept["settings"], [kept[name] for name in names] + [kept.get(name, {}) for name in later]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: expected figures of a stopped run ({error}); remove it") from error
        if found != self.plain:
            raise ValueError(f"{self.path}: of a stopped run with {found}, expected {self.plain}; remove it")
        return figures

    def write(self, figures: Mapping[str, object]) -> None:
        """Write the figures so far."""
        with atomic_file(self.path) as draft:
            draft.write_text(json.dumps({"settings": self.plain, **figures}))

    def finish(self, text: str) -> None:
        """Write the final file, and remove the partial one."""
        with atomic_file(self.final) as draft:
            draft.write_text(text)
        self.path.unlink(missing_ok=True)
