"""Nothing that is read can run: no unpickling, no unsafe YAML, no evaluation of text, anywhere in the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lightning_vmat

PACKAGE = Path(lightning_vmat.__file__).parent
FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "os.popen", "marshal.loads"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "torch.jit.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}
NEEDED = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def unsafe(source: str) -> list[str]:
    """Calls that could run what a file holds."""
    found = []
    for call in calls(source):
        name = ast.unparse(call.func)
        keywords = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        option, value = NEEDED.get(name, ("", None))
        if name in FORBIDDEN or (option and keywords.get(option) is not value):
            found.append(f"{name}, line {call.lineno}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_call_runs_what_a_file_holds(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ["eval(x)", "torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(t)", "np.load(p)"]
)
def test_the_search_finds_them(line: str) -> None:
    assert len(unsafe(line)) == 1


def test_and_lets_the_safe_ones_be() -> None:
    assert unsafe("yaml.safe_load(t); torch.load(p, weights_only=True); np.load(p, allow_pickle=False); m.eval()") == []
