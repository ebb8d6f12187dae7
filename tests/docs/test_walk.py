"""Every command in a code fence of a README is typed, at sizes of seconds; some need what is not here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from readme import READMES, name_of, once, typed
from workplace import NOT_HERE, Workplace, can_run, commands


@pytest.mark.slow
@pytest.mark.timeout(900)  # seconds of work, but also on a crowded machine
@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
@pytest.mark.parametrize("words", commands(), ids=shlex.join)
def test_a_command_runs(words: list[str], workplace: Workplace) -> None:
    workplace.run(words)


@pytest.mark.slow
def test_the_first_minute_ends_in_a_report(workplace: Workplace) -> None:
    for words in typed(READMES[0]):
        if "runs/minute" in shlex.join(words) and "--run" not in words:
            workplace.run(words)
    measured = json.loads((workplace.folder / "runs/plan/metrics.json").read_text())
    assert measured["machine_violations"] == 0 and measured["dose_evaluations"] == 20
    assert (workplace.folder / "runs/plan/report.html").stat().st_size > 10_000


def test_what_is_not_typed_needs_what_is_not_here() -> None:
    everything = once([words for path in READMES for words in typed(path)])
    left_out = [shlex.join(words) for words in everything if not can_run(words)]
    assert len(left_out) < len(everything) / 2
    assert all(any(part in line for line in left_out) for part in NOT_HERE), "a reason that no command needs"


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_fences_have_a_language(path: Path) -> None:
    """So that none is overlooked."""
    fences = [line for line in path.read_text().splitlines() if line.startswith("```")]
    assert set(fences[::2]) <= {"```sh", "```python"} and set(fences[1::2]) <= {"```"}
