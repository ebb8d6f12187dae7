"""The commands that README shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def fences() -> list[str]:
    """Contents of the code fences, in order."""
    return re.findall(r"^```\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def words_of(lines: str) -> list[list[str]]:
    """The commands in some lines, word by word, without comments."""
    return [words for line in lines.splitlines() if (words := shlex.split(line, comments=True))]


def shown() -> list[list[str]]:
    """Every command in a fence, and every call of `vmat` with arguments, of make and of pytest in the text itself."""
    commands = [words for fence in fences() for words in words_of(fence)]
    prose = re.sub(r"^```\n.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:vmat|make|python|source) [^`]+)`", prose):
        commands += words_of(code)
    return commands
