"""A cohort: a folder of cases, with `split.yaml` (who is for what) and `manifest.yaml` (how it was made)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_vmat.data.atomic import atomic_file
from lightning_vmat.data.case_files import CASE_FILE

SPLIT_FILE, MANIFEST_FILE = "split.yaml", "manifest.yaml"
SPLITS = ("train", "validation", "test")
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.125


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

    def write(self, manifest: Mapping[str, object]) -> None:
        """Write the split and how the cohort was made.

        Raises:
            ValueError: a cohort made in another way is there already.
        """
        path = self.root / MANIFEST_FILE
        if path.is_file():
            _check_same(_read_yaml(path), manifest, path)
        for name, content in ((MANIFEST_FILE, dict(manifest)), (SPLIT_FILE, self.split)):
            with atomic_file(self.root / name) as draft:
                draft.write_text(yaml.safe_dump(content, sort_keys=False))


def read_cohort(root: Path) -> Cohort:
    """A cohort from its folder.

    Raises:
        ValueError: not a cohort, or a broken split file.
    """
    root = Path(root)
    path = root / SPLIT_FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a cohort folder as `vmat prepare` writes it")
    split = _read_yaml(path)
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


def _check_same(found: dict[str, Any], manifest: Mapping[str, object], path: Path) -> None:
    """All but the version and whether plans were asked for must agree."""
    for key, value in manifest.items():
        if key not in ("package_version", "planned") and found.get(key) != value:
            raise ValueError(f"{path}: made with {key} {found.get(key)}, expected {value}; choose another folder")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected keys and values")
    return content
