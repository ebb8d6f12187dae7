"""The documents of the repository, and the commands and Python blocks that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("configs", "docker", "lightning_vmat", "tests")
READMES = [ROOT / "README.md", *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("README.md"))]
DOCUMENTS = [*READMES, *sorted((ROOT / ".github").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    """A document's path in the repository."""
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    """Contents of a document's code fences in a language (`sh`, `python`), in order."""
    return [content for kind, content in FENCE.findall(path.read_text()) if kind == language]


def words_of(lines: str) -> list[list[str]]:
    """The commands in some lines, word by word, without comments; a backslash continues a line."""
    joined = lines.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def typed(path: Path) -> list[list[str]]:
    """Every command in a document's code fences."""
    return [words for block in blocks(path, "sh") for words in words_of(block)]


def mentioned(path: Path) -> list[list[str]]:
    """Every call of `vmat` with arguments, of make, of python and of pip in the text itself."""
    prose = FENCE.sub("", path.read_text())
    return [words for code in re.findall(r"`((?:vmat|make|python|pip) [^`]+)`", prose) for words in words_of(code)]


def once(commands: list[list[str]]) -> list[list[str]]:
    """The commands without repetitions, in order."""
    return [shlex.split(line) for line in dict.fromkeys(shlex.join(words) for words in commands)]
