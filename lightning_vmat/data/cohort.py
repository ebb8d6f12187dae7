"""A cohort: a folder of cases, with `split.yaml` (who is for what) and `manifest.yaml` (how it was made)."""

from __future__ import annotations

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
HELD_OUT, HELD_OUT_ABOVE = range(160, 200), 900_000  # seeds that no network may learn from


@dataclass(frozen=True)
class Cohort:
    """Folders of the cases of each split.

    Args:
        root: folder of the cohort.
        split: names of the cases for `train`, `validation` and `test`.

    Raises:
        ValueError: another split, or a case in two of them.
    """

    root: Path
    split: dict[str, list[str]]

    def __post_init__(self) -> None:
        if set(self.split) != set(SPLITS):
            raise ValueError(f"{self.root / SPLIT_FILE}: splits {sorted(self.split)}, expected {', '.join(SPLITS)}")
        names = [name for part in SPLITS for name in self.split[part]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.root / SPLIT_FILE}: {', '.join(twice)} listed twice, expected each case once")

    def folders(self, part: str) -> list[Path]:
        """Folders of one split.

        Raises:
            ValueError: the split is empty, or a case is missing.
        """
        folders = [self.root / name for name in self.split[part]]
        if not folders:
            raise ValueError(f"{self.root / SPLIT_FILE}: no cases for {part}")
        for folder in folders:
            if not (folder / CASE_FILE).is_file():
                raise ValueError(f"{folder}: no such case, though {SPLIT_FILE} lists it; run `vmat prepare` again")
        return folders

    @contextmanager
    def under_way(self, manifest: Mapping[str, object]) -> Iterator[None]:
        """A block that makes cases of this cohort; the split file, without which a folder is no cohort, comes last.

        Cases that the block leaves out, see `left_out`, are in neither: the others are split anew, in order.

        Args:
            manifest: how the cases are made, with `planner` None for cases without plans. Versions join it, and
                how good the plans are once all are there.

        Raises:
            ValueError: a cohort made in another way is there already.
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
        """Write how the cohort was made, then the split."""
        write_mapping(self.root / MANIFEST_FILE, manifest)
        write_mapping(self.root / SPLIT_FILE, self.split)

    def _missing(self, about: Mapping[str, object]) -> bool:
        """Whether a case, or the plan of one in a cohort with plans, is not there yet."""
        needed = (CASE_FILE, PLAN_FILE) if about["planner"] is not None else (CASE_FILE,)
        return not all((self.root / name / file).is_file() for name in self._names for file in needed)

    @property
    def _names(self) -> list[str]:
        return [name for part in SPLITS for name in self.split[part]]

    def _without(self, names: Collection[str]) -> Cohort:
        """The cohort of the other cases, split in order."""
        rest = [name for name in self._names if name not in names]
        return self if len(rest) == len(self._names) else Cohort(self.root, split_in_order(rest))

    def _cases(self) -> dict[str, dict[str, object]]:
        """Of each case how good its plan is, as far as that was noted."""
        cases = {}
        for name in self._names:
            path = self.root / name / PLAN_FILE
            metadata = read_plan(path)[1] if path.is_file() else {}
            cases[name] = {key: metadata[key] for key in QUALITY if key in metadata}
        return cases


def read_cohort(root: Path) -> Cohort:
    """A cohort from its folder.

    Raises:
        ValueError: not a cohort, or a broken split file.
    """
    root = Path(root)
    path = root / SPLIT_FILE
    if not path.is_file():
        half = f"; {root / MANIFEST_FILE} is there: run `vmat prepare` again to finish it"
        raise ValueError(
            f"{path}: no such file, expected a cohort folder as `vmat prepare` writes it"
            f"{half if (root / MANIFEST_FILE).is_file() else ''}"
        )
    split = read_mapping(path)
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in split.values()):
        raise ValueError(f"{path}: expected a list of case names for each of {', '.join(SPLITS)}")
    return Cohort(root, split)


def split_in_order(names: list[str]) -> dict[str, list[str]]:
    """The first cases for training, then some for validation, the last for testing."""
    test = max(1, round(TEST_SHARE * len(names))) if len(names) > 1 else 0
    validation = max(1, round(VALIDATION_SHARE * len(names))) if len(names) > 2 else 0
    train = len(names) - validation - test
    return {
        "train": names[:train],
        "validation": names[train : train + validation],
        "test": names[train + validation :],
    }


def split_of_seeds(seeds: Sequence[int], name: Callable[[int], str]) -> dict[str, list[str]]:
    """The split of phantoms: held-out seeds test, whatever the cohort; without any, as `split_in_order`.

    Args:
        seeds: of all phantoms of the cohort.
        name: of the phantom of a seed.
    """
    held_out = [name(seed) for seed in seeds if is_held_out(seed)]
    others = [name(seed) for seed in seeds if not is_held_out(seed)]
    if not held_out:
        return split_in_order(others)
    validation = max(1, round(VALIDATION_SHARE * len(others))) if len(others) > 1 else 0
    train = len(others) - validation
    return {"train": others[:train], "validation": others[train:], "test": held_out}


def is_held_out(seed: int) -> bool:
    """Whether the phantom of a seed is kept for tests: 160 to 199, on which published figures are, and from 900,001."""
    return seed in HELD_OUT or seed > HELD_OUT_ABOVE


def _merged(found: Mapping[str, object], manifest: Mapping[str, object], path: Path) -> dict[str, object]:
    """The manifest of a cohort that is added to: the same settings and versions; plans may have come or come now.

    Raises:
        ValueError: what differs.
    """
    planner = found.get("planner") if manifest["planner"] is None else manifest["planner"]
    merged = {**manifest, "planner": planner}
    for key, value in merged.items():
        before = found.get(key)
        if before != value and not (key == "planner" and before is None):
            raise ValueError(f"{path}: made with {key} {before}, expected {value}; choose another folder")
    return merged
