"""A cohort: a folder of cases with `split.yaml` (training, validation, test) and `manifest.yaml` (how it was made)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import CASE_FILE, CASE_VERSION, PLAN_FILE
from lightning_vmat.cases.plan_files import read_plan
from lightning_vmat.data import left_out
from lightning_vmat.data.reference_plans import QUALITY
from lightning_vmat.files.yaml_file import read_mapping, write_mapping

SPLIT_FILE, MANIFEST_FILE = "split.yaml", "manifest.yaml"
SPLITS = ("train", "validation", "test")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.125
HELD_OUT, HELD_OUT_ABOVE = range(160, 200), 900_000  # held-out seeds: no network may learn from them


@dataclass(frozen=True)
class Cohort:
    """A cohort folder and its split.

    Args:
        root: folder of the cohort.
        split: names of the cases of `train`, `validation` and `test`.

    Raises:
        ValueError: other splits, or a case in two of them.
    """

    root: Path
    split: dict[str, list[str]]

    def __post_init__(self) -> None:
        if set(self.split) != set(SPLITS):
            raise ValueError(f"{self.root / SPLIT_FILE}: splits {sorted(self.split)}, expected {', '.join(SPLITS)}")
        names = [name for part in SPLITS for name in self.split[part]]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"{self.root / SPLIT_FILE}: {', '.join(twice)} listed twice, expected each case once")

    def folders(self, part: str) -> list[Path]:
        """Case folders of one split.

        Raises:
            ValueError: the split is empty, or a case is missing.
        """
        folders = [self.root / name for name in self.split[part]]
        if not folders:
            raise ValueError(f"{self.root / SPLIT_FILE}: no cases for {part}, expected at least 1")
        for folder in folders:
            if not (folder / CASE_FILE).is_file():
                raise ValueError(f"{folder}: no such case, but {SPLIT_FILE} lists it; run `vmat prepare` again")
        return folders

    @contextmanager
    def under_way(self, manifest: Mapping[str, object]) -> Iterator[None]:
        """Make the cases of this cohort in a block. The split file, which completes the cohort, is written last.

        Cases that the block leaves out, see `left_out`, are in neither file; the others are split again, in order.

        Args:
            manifest: how the cases are made, with `planner` None for cases without plans. Versions are added, and
                the quality of the plans once all exist.

        Raises:
            ValueError: the folder already contains a cohort of other settings.
        """
        path, is_new = self.root / MANIFEST_FILE, not self.root.exists()
        about = {**manifest, "package_version": __version__, "case_version": CASE_VERSION}
        if path.is_file():
            about = _merged(read_mapping(path), about, path)
        if self._missing(about):
            (self.root / SPLIT_FILE).unlink(missing_ok=True)
        write_mapping(path, about)
        try:
            yield
        finally:
            reasons = left_out.left_out(self.root)
            rest = self._without(reasons)
            if not rest._names:
                left_out.clear(self.root)
            if rest._names and not rest._missing(about):
                left_out.write_list(self.root, reasons)
                rest.write({**about, "cases": rest._cases()})
            elif not any(self.root.glob(f"*/{CASE_FILE}")) and not (rest._names and reasons):
                path.unlink()
                if is_new:
                    self.root.rmdir()

    def write(self, manifest: Mapping[str, object]) -> None:
        """Write the manifest, then the split."""
        write_mapping(self.root / MANIFEST_FILE, manifest)
        write_mapping(self.root / SPLIT_FILE, self.split)

    def _missing(self, about: Mapping[str, object]) -> bool:
        """Whether a case, or the plan of a case in a cohort with plans, is still missing."""
        needed = (CASE_FILE, PLAN_FILE) if about["planner"] is not None else (CASE_FILE,)
        return not all((self.root / name / file).is_file() for name in self._names for file in needed)

    @property
    def _names(self) -> list[str]:
        return [name for part in SPLITS for name in self.split[part]]

    def _without(self, names: Collection[str]) -> Cohort:
        """The cohort without the named cases, split in order."""
        rest = [name for name in self._names if name not in names]
        return self if len(rest) == len(self._names) else Cohort(self.root, split_in_order(rest))

    def _cases(self) -> dict[str, dict[str, object]]:
        """Quality of the plan of each case, if it was stored."""
        cases = {}
        for name in self._names:
            path = self.root / name / PLAN_FILE
            metadata = read_plan(path)[1] if path.is_file() else {}
            cases[name] = {key: metadata[key] for key in QUALITY if key in metadata}
        return cases


def read_cohort(root: Path) -> Cohort:
    """Read a cohort.

    Raises:
        ValueError: not a cohort, or an invalid split file.
    """
    root = Path(root)
    path = root / SPLIT_FILE
    if not path.is_file():
        half = f"; {root / MANIFEST_FILE} is there: run `vmat prepare` again to finish it"
        raise ValueError(
            f"{path}: no such file, expected a cohort folder that `vmat prepare` wrote"
            f"{half if (root / MANIFEST_FILE).is_file() else ''}"
        )
    split = read_mapping(path)
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in split.values()):
        raise ValueError(f"{path}: expected a list of case names for each of {', '.join(SPLITS)}")
    return Cohort(root, split)


def split_in_order(names: list[str]) -> dict[str, list[str]]:
    """Split cases in order: the first for training, then some for validation, the last for testing."""
    test = max(1, round(TEST_SHARE * len(names))) if len(names) > 1 else 0
    validation = max(1, round(VALIDATION_SHARE * len(names))) if len(names) > 2 else 0
    train = len(names) - validation - test
    return {
        "train": names[:train],
        "validation": names[train : train + validation],
        "test": names[train + validation :],
    }


def split_of_seeds(seeds: Sequence[int], name: Callable[[int], str]) -> dict[str, list[str]]:
    """Split phantoms: held-out seeds are for testing in every cohort; without any, like `split_in_order`.

    Args:
        seeds: seeds of all phantoms of the cohort.
        name: returns the name of the phantom of a seed.
    """
    held_out = [name(seed) for seed in seeds if is_held_out(seed)]
    others = [name(seed) for seed in seeds if not is_held_out(seed)]
    if not held_out:
        return split_in_order(others)
    validation = max(1, round(VALIDATION_SHARE * len(others))) if len(others) > 1 else 0
    train = len(others) - validation
    return {"train": others[:train], "validation": others[train:], "test": held_out}


def is_held_out(seed: int) -> bool:
    """Whether a seed is held out for tests: 160 to 199 (published figures), and from 900,001."""
    return seed in HELD_OUT or seed > HELD_OUT_ABOVE


def _merged(found: Mapping[str, object], manifest: Mapping[str, object], path: Path) -> dict[str, object]:
    """The manifest of a cohort to continue, of the same settings and versions; plans may be added.

    Raises:
        ValueError: another setting or version.
    """
    planner = found.get("planner") if manifest["planner"] is None else manifest["planner"]
    merged = {**manifest, "planner": planner}
    for key, value in merged.items():
        before = found.get(key)
        if before != value and not (key == "planner" and before is None):
            raise ValueError(f"{path}: made with {key} {before}, expected {value}; choose another folder")
    return merged
