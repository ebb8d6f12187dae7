"""Nearly every public module, class, function, method and property has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from readme import ROOT

PACKAGE = ROOT / "lightning_vmat"
COVERAGE = 0.97
MEASURED = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")} - {"__init__.py"})
"""Folders and modules of the package."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    """A module or class and everything public in it; functions inside functions are not public."""
    yield name, node
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
                yield from public(child, f"{name}.{child.name}")


def documented(part: str) -> dict[str, bool]:
    """Public name -> whether it has a docstring, for a folder or file of the package."""
    place = PACKAGE / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    found: dict[str, bool] = {}
    for path in files:
        module = ast.parse(path.read_text())
        if module.body:
            for name, node in public(module, str(path.relative_to(PACKAGE))):
                found[name] = found.get(name, False) or ast.get_docstring(node) is not None
    return found


@pytest.mark.parametrize("part", MEASURED)
def test_public_names_have_docstrings(part: str) -> None:
    found = documented(part)
    assert len(found) > 1
    missing = [name for name, has in found.items() if not has]
    assert 1 - len(missing) / len(found) >= COVERAGE, missing


def test_a_missing_docstring_is_found() -> None:
    module = ast.parse('"""A module."""\nclass A:\n    """A class."""\n    def b(self): ...\n    def _c(self): ...\n')
    names = {name: ast.get_docstring(node) is not None for name, node in public(module, "m")}
    assert names == {"m": True, "m.A": True, "m.A.b": False}
