"""Steps of gpu.sh in Python: the split of its training cases, and one JSON of all its results."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import CASE_FILE
from lightning_vmat.data.cohort import Cohort

PARTS = {"train": slice(0, 4), "validation": slice(4, 6), "test": slice(6, 8)}


def split(root: Path) -> None:
    """Makes the first eight cases of a folder, complete or not, a cohort."""
    names = sorted(path.parent.name for path in root.glob(f"*/{CASE_FILE}"))
    Cohort(root, {part: names[which] for part, which in PARTS.items()}).write({"source": "gpu.sh"})


def join(out: Path) -> None:
    """Writes `gpu.json` from whatever results are in a folder; what is missing was not reached or failed."""
    results: dict[str, Any] = {"package_version": __version__, "torch": torch.__version__, "hardware": "cpu"}
    if torch.cuda.is_available():
        results["hardware"] = torch.cuda.get_device_name()
    if (out / "parity.xml").is_file():
        suite = next(ElementTree.parse(out / "parity.xml").iter("testsuite"))
        results["parity"] = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    if (out / "dose.json").is_file():
        results["dose"] = json.loads((out / "dose.json").read_text())
    results["training"] = {path.stem: last_values(path) for path in sorted(out.glob("*.csv"))}
    results["planning"] = {}
    for name in ("base", "clinical"):
        for path in (out / f"planners-{name}.json", out / f"planners-{name}.json.partial"):
            if path.is_file():
                results["planning"][path.name.removeprefix("planners-")] = json.loads(path.read_text())
    (out / "gpu.json").write_text(json.dumps(results, indent=1))
    print(out / "gpu.json")


def last_values(path: Path) -> dict[str, float]:
    """The last value of each column of a run's metrics."""
    values: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values |= {name: float(value) for name, value in row.items() if value}
    return values


if __name__ == "__main__":
    {"split": split, "join": join}[sys.argv[1]](Path(sys.argv[2]))
