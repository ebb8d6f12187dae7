"""Text for a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def linked(path: Path, terminal: bool | None = None) -> str:
    """A path to print: on a terminal a link that opens the file, elsewhere the plain path.

    The link is the escape sequence OSC 8. Terminals that do not know it show the plain path.

    Args:
        path: an existing file or folder.
        terminal: whether the text goes to a terminal; found out for standard output if None.
    """
    if terminal is None:
        terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return f"\x1b]8;;{path.absolute().as_uri()}\x1b\\{path}\x1b]8;;\x1b\\" if terminal else str(path)
