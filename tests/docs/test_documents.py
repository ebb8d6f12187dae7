"""Documents: links lead somewhere, lines are short, the README is an entrance, results name their files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from readme import DOCUMENTS, FENCE, READMES, ROOT, name_of

from lightning_vmat import __version__

LINK = re.compile(r"\]\(([^)\s]+)\)")
LONGEST = 160
FOLDERS = (
    "configs",
    "docker",
    "tests/benchmarks",
    *(f"lightning_vmat/{name}" for name in ("cases", "dose", "planning", "recipes")),
)


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", path.read_text())):
        place, _, anchor = link.partition("#")
        if place.startswith(("http:", "https:")):
            continue
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_lines_are_short(path: Path) -> None:
    text = path.read_text()
    kept = text if path == READMES[0] else FENCE.sub("", re.sub(r"^(\||\$\$).*$", "", text, flags=re.MULTILINE))
    assert [line for line in kept.splitlines() if len(line) > LONGEST] == []


def test_the_readme_is_an_entrance() -> None:
    text = READMES[0].read_text()
    assert len(text.splitlines()) <= 170
    for title in ("Install", "In a minute", "In Python", "The experiment", "Results", "Commands", "Extend it"):
        assert f"\n## {title}\n" in text
    assert "For research only" in text
    for path in READMES[1:]:
        assert str(path.parent.relative_to(ROOT)) in text, f"{name_of(path)}: the README does not lead there"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_documents_itself(folder: str) -> None:
    assert (ROOT / folder / "README.md").is_file()


def test_results_name_their_files() -> None:
    """Every table's JSON is named in the text that goes with it."""
    text = (ROOT / "tests/benchmarks/README.md").read_text()
    for path in sorted((ROOT / "tests/benchmarks").glob("*.json")):
        assert path.name in text, path.name


def test_continuous_integration_runs_what_everyone_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert {"run": ".ci/run"} in job["steps"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_citation_and_changes_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / ".github/CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["version"] == __version__ and citation["license"] == "Apache-2.0"
    assert f"\n## {__version__}\n" in (ROOT / ".github/CHANGELOG.md").read_text()
