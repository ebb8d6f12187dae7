"""What a notebook sees: names, short texts, and imports that are worth their time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_vmat as vmat
from lightning_vmat.plan.html_table import html_table

STUB = Path(vmat.__file__).with_name("__init__.pyi")
HEAVY = ("torch", "numpy", "lightning", "monai", "yaml", "matplotlib")
NOT_FOR_A_PLAN = ("lightning", "monai", "torchmetrics", "wandb", "sympy", "torch._dynamo", "torch._inductor")


def loaded_after(script: str, names: tuple[str, ...], folder: Path) -> set[str]:
    """Which modules a script has imported in a process of its own."""
    code = f"{script}\nimport sys\nprint('loaded', *sorted(set(sys.modules) & set({names!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_package_imports_nothing_by_itself(tmp_path: Path) -> None:
    assert loaded_after("import lightning_vmat", HEAVY, tmp_path) == set()


def test_a_learned_plan_needs_neither_lightning_nor_a_compiler(tmp_path: Path) -> None:
    """From the command line, to the report."""
    vmat.write_case(vmat.phantom(0, size="tiny"), tmp_path / "case")
    script = (
        "from lightning_vmat.cli import main\n"
        "assert main(['plan', 'case', '--out', 'out', '--planner', 'learned', '--voxels', '300']) == 0"
    )
    assert loaded_after(script, NOT_FOR_A_PLAN, tmp_path) == set()
    assert (tmp_path / "out" / "report.html").is_file()


def test_every_name_is_there_and_the_stub_knows_the_same() -> None:
    imports = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    stub = {str(alias.asname): f"{node.module}:{alias.name}" for node in imports for alias in node.names}
    assert set(stub) == set(vmat.__all__) - {"__version__"}
    for name, place in stub.items():
        module, _, original = place.partition(":")
        __import__(module)
        assert getattr(vmat, name) is getattr(sys.modules[module], original), name
    assert set(vmat.__all__) <= set(dir(vmat)) and len(vmat.__all__) < 50


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lightning_vmat' has no attribute 'nothing'"):
        _ = vmat.nothing  # type: ignore[attr-defined]


def test_what_is_shown_fits_a_screen(tmp_path: Path) -> None:
    case = vmat.phantom(1, size="tiny", protocol="prostate_nodes_68gy_25fx")
    many = {f"Organ{i}": case.structures["Rectum"] for i in range(40)}
    case = case.with_settings(structures={**case.structures, **many}, wishes={"Rectum": 4.0})
    result = vmat.planner("conventional@5", voxels=300).plan(case)
    judged = vmat.evaluate_plan(case, result)
    for shown, lines in ((case, 5), (result, 2), (result.plan, 1), (judged, 4), (vmat.planner("fluence"), 1)):
        assert len(repr(shown).splitlines()) <= lines
        assert max(map(len, repr(shown).splitlines())) < 400
    assert "phantom_0001" in repr(case) and "PTVNodes" in repr(case) and "Rectum x 4" in repr(case)
    assert f"{len(case.structures) - 12} more" in repr(case)
    missed = [goal.structure for goal in judged.goals if not goal.met]
    assert all(name in repr(judged) for name in missed[:6])
    for shown in (case, result, judged):
        assert shown._repr_html_().startswith("<table>") and len(shown._repr_html_()) < 10_000


def test_a_table_escapes_what_it_shows() -> None:
    assert html_table("<a>", [("<b>", 1)]) == (
        "<table><caption>&lt;a&gt;</caption><tr><td>&lt;b&gt;</td><td>1</td></tr></table>"
    )


def test_a_report_is_written_by_its_planners_name(tmp_path: Path) -> None:
    case = vmat.phantom(0, size="tiny")
    result = vmat.planner("conventional@5", voxels=300, wishes={"Rectum": 4}).plan(case)
    vmat.write_report(tmp_path / "plan.html", case, result, vmat.evaluate_plan(case, result))
    text = (tmp_path / "plan.html").read_text()
    assert "conventional@5" in text and "Rectum \N{MULTIPLICATION SIGN} 4" in text
