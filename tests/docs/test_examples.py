"""The examples in docstrings, and the Python blocks of every README, run as they stand."""

from __future__ import annotations

import doctest
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from readme import ROOT

from lightning_vmat import _PLACES  # type: ignore[attr-defined]

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SOURCES = sorted(path for path in (ROOT / "lightning_vmat").rglob("*.py") if ">>> " in path.read_text())
READMES = [ROOT / "README.md", *sorted((ROOT / "lightning_vmat").rglob("README.md"))]
ENTRY_POINTS = ("phantom", "read_case", "read_dicom", "planner", "evaluate_plan", "write_report")
EXTENSIONS = ("register_planner", "register_optimizer", "register_objective", "register_reader")


def blocks(path: Path) -> list[str]:
    """The Python blocks of a README, in order."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_docstring_examples(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(module_name(path)), optionflags=FLAGS)
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("path", [path for path in READMES if blocks(path)], ids=lambda path: path.parent.name)
def test_python_blocks_of_a_readme(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, at the smallest size."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType(f"readme_{path.parent.name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look for themselves
    for block in blocks(path):
        small = block.replace('size="base"', 'size="tiny"')
        exec(compile(small, str(path), "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("name", [*ENTRY_POINTS, *EXTENSIONS])
def test_entry_points_have_an_example(name: str) -> None:
    module, _, original = _PLACES[name].partition(":")
    found = getattr(import_module(f"lightning_vmat.{module}"), original or name)
    assert ">>> " in (found.__doc__ or "")
