"""A cohort of planned phantoms as one small file of seeds, leaf tips and monitor units, from which cases are made.

A case of base size with its plan takes 5 kB instead of 0.6 MB. Since a seed gives the same bits on every machine, the
file contains only a checksum of each case (voxels, jaws and wishes). Plans are rounded, see `packed_plans`, and
brought within the limits of the machine when they are unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_vmat.cases.case_files import PLAN_FILE, read_case
from lightning_vmat.cases.phantom.phantom import phantom_name, phantom_seed
from lightning_vmat.cases.phantom.source import PhantomSource
from lightning_vmat.cases.plan_files import read_plan, same_bytes
from lightning_vmat.cases.source import SourceCase
from lightning_vmat.data.cohort import MANIFEST_FILE, SPLIT_FILE, SPLITS
from lightning_vmat.data.packed_plans import pack_leaf_tips, pack_monitor_units, unpack_plan
from lightning_vmat.data.preparation import prepare
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits

PACK_VERSION = 2
SUFFIX = ".safetensors"
PARTS = "leaf_tips", "mu"
ROUNDED = {"rounded_to": {"leaf_tips_mm": 0.1, "mu_fraction": 0.001}}  # metadata of an unpacked plan


@dataclass(frozen=True)
class Pack:
    """The header of a packed cohort.

    Args:
        path: the file.
        manifest: manifest of the cohort.
        split: names of the cases of each split.
        plans: how each plan was made, by case.
        checksums: checksum of each case's voxels, jaws and wishes.
    """

    path: Path
    manifest: dict[str, Any]
    split: dict[str, list[str]]
    plans: dict[str, dict[str, Any]]
    checksums: dict[str, str]

    @property
    def sources(self) -> list[PackedSource]:
        """Sources of the packed cases, by seed."""
        names = (name for part in SPLITS for name in self.split[part])
        return [PackedSource(self, seed) for seed in sorted(phantom_seed(name) for name in names)]

    def stored(self, name: str) -> list[Tensor]:
        """Read the tensors of a case's plan."""
        with safe_open(self.path, framework="pt") as file:
            return [file.get_tensor(f"{name}.{part}") for part in PARTS]


@dataclass(frozen=True)
class PackedSource:
    """One case of a packed cohort."""

    pack: Pack
    seed: int

    @property
    def name(self) -> str:
        """Name of the phantom, such as `phantom_0007`."""
        return phantom_name(self.seed)

    @property
    def size(self) -> str:
        """Name of the size of all cases in the pack."""
        return str(self.pack.manifest["size"])

    def load(self) -> SourceCase:
        """Make the phantom and its plan.

        Raises:
            ValueError: the phantom differs from the planned one, because another version made it.
        """
        about = self.pack.manifest
        share = (about.get("wishes") or {}).get("share", 0.0)
        source = PhantomSource(self.seed, self.size, str(about["protocol"]), share, about.get("jaw_margin_mm"))
        case = source.load().case
        if checksum(case) != self.pack.checksums[self.name]:
            raise ValueError(
                f"{self.pack.path}: {self.name} made here differs from the one planned, expected the same bits"
            )
        plan = self.plan(case.beam_setup)
        return SourceCase(case, plan=plan, plan_metadata=self.pack.plans[self.name])

    def plan(self, setup: BeamSetup) -> Plan:
        """Read the plan alone, brought within the machine's limits.

        Args:
            setup: beam setup of the case.

        Raises:
            ValueError: tensors that do not make a plan.
        """
        tensors = self.pack.stored(self.name)
        try:
            return project_to_limits(unpack_plan(*tensors), setup)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.pack.path}: plan of {self.name}: {error}") from error


def write_pack(roots: Sequence[Path], out: Path) -> None:
    """Pack the planned phantoms of one or more cohorts of the same settings.

    Args:
        roots: folders of cohorts, complete or not (cases without a plan are left out), or packed cohorts;
            a phantom is taken from the first one that contains it.
        out: file to write.

    Raises:
        ValueError: no such cohort, cases that are no phantoms, no plan at all, or cohorts of different settings.
    """
    packs = [read_pack(root) if Path(root).suffix == SUFFIX else _pack_of_folder(Path(root)) for root in roots]
    _check_alike(packs)
    split: dict[str, list[str]] = {part: [] for part in SPLITS}
    tensors: dict[str, Tensor] = {}
    plans: dict[str, Any] = {}
    checksums: dict[str, str] = {}
    for pack in packs:
        for part in SPLITS:
            for name in (name for name in pack.split[part] if name not in plans):
                split[part].append(name)
                plans[name], checksums[name] = pack.plans[name] | ROUNDED, pack.checksums[name]
                values = pack.stored(name) if pack.path.is_file() else _rounded_parts(pack.path / name)
                tensors |= {f"{name}.{kind}": value for kind, value in zip(PARTS, values, strict=True)}
    if not plans:
        raise ValueError(f"{', '.join(map(str, roots))}: no case with a plan, expected at least 1")
    split = {part: sorted(names, key=phantom_seed) for part, names in split.items()}
    names = sorted(plans, key=phantom_seed)
    which = {
        "seeds": [phantom_seed(names[0]), phantom_seed(names[-1])],
        "validation": split["validation"],
        "test": split["test"],
    }
    manifest = {key: which.get(key, value) for key, value in packs[0].manifest.items() if key != "cases"}
    about = {
        "manifest": manifest,
        "split": split,
        "plans": {name: plans[name] for name in names},
        "checksums": {name: checksums[name] for name in names},
    }
    with atomic_file(out) as draft:
        draft.write_bytes(same_bytes(tensors, {"pack_version": str(PACK_VERSION), "cohort": json.dumps(about)}))


def _pack_of_folder(root: Path) -> Pack:
    """The header that a folder of planned phantoms gets as a packed cohort."""
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise ValueError(f"{root}: not a cohort, expected a folder of `vmat prepare phantom`, or a packed cohort")
    manifest = read_mapping(path)
    if manifest.get("source") != "phantom":
        raise ValueError(f"{root}: cases of {manifest.get('source')}, expected phantoms, as only they have seeds")
    folders = sorted(file.parent for file in root.glob(f"*/{PLAN_FILE}"))
    for_others = {name: part for part in ("validation", "test") for name in manifest.get(part) or ()}
    split: dict[str, list[str]] = {part: [] for part in SPLITS}
    for folder in folders:
        split[for_others.get(folder.name, "train")].append(folder.name)
    return Pack(
        path=root,
        manifest=manifest,
        split=split,
        plans={folder.name: read_plan(folder / PLAN_FILE)[1] for folder in folders},
        checksums={folder.name: checksum(read_case(folder)) for folder in folders},
    )


def _check_alike(packs: Sequence[Pack]) -> None:
    """Raise a ValueError for cohorts of different settings; the cases may differ."""
    of_cases = {"cases", "seeds", "validation", "test"}
    first, *others = ({k: v for k, v in pack.manifest.items() if k not in of_cases} for pack in packs)
    for pack, other in zip(packs[1:], others, strict=True):
        differ = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differ:
            raise ValueError(
                f"{pack.path}: {differ[0]} is {other.get(differ[0])}, expected {first.get(differ[0])} as "
                f"{packs[0].path} has"
            )


def _rounded_parts(folder: Path) -> tuple[Tensor, Tensor]:
    plan, _ = read_plan(folder / PLAN_FILE)
    return pack_leaf_tips(plan), pack_monitor_units(plan)


def read_pack(name_or_path: str | Path) -> Pack:
    """Read the header of a shipped packed cohort, or of a file.

    Raises:
        ValueError: neither, a broken file, or one of another version.
    """
    shipped = Path(str(resources.files("lightning_vmat.data") / "cohorts" / f"{name_or_path}{SUFFIX}"))
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        raise ValueError(f"{name_or_path}: neither a shipped cohort ({', '.join(shipped_cohorts())}) nor a packed one")
    try:
        with safe_open(path, framework="pt") as file:
            header, stored = file.metadata() or {}, set(file.keys())
        about = json.loads(header.get("cohort", "null"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a packed cohort ({' '.join(str(error).split())})") from error
    if header.get("pack_version") != str(PACK_VERSION):
        raise ValueError(f"{path}: pack version {header.get('pack_version')}, expected {PACK_VERSION}")
    pack = Pack(path, **about)
    missing = [f"{source.name}.{part}" for source in pack.sources for part in PARTS]
    if missing := sorted(set(missing) - stored):
        raise ValueError(f"{path}: {missing[0]} missing, expected leaves and monitor units of every case")
    return pack


def unpack(name_or_path: str | Path, out: Path, *, jobs: int, shard: str = "1/1") -> None:
    """Make the cases of a packed cohort; see `prepare`."""
    pack = read_pack(name_or_path)
    manifest = {key: value for key, value in pack.manifest.items() if key != "cases"}
    prepare(pack.sources, pack.split, out, manifest, plan=False, jobs=jobs, shard=shard)


def unpacked(cohort: Path) -> Path:
    """The folder of a cohort; a packed one is unpacked into the cache folder, once.

    Args:
        cohort: a folder, a packed file, or the name of a shipped one.
    """
    if cohort.is_dir() or (cohort.suffix != SUFFIX and str(cohort) not in shipped_cohorts()):
        return cohort
    path = read_pack(cohort).path
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"{path.stem}-{content}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):  # jobs of an array and nodes of a job share the folder
        if not (folder / SPLIT_FILE).is_file():
            unpack(path, folder, jobs=available_cores())
    return folder


def available_cores() -> int:
    """Number of cores that this process may use, on a cluster fewer than those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """The cache folder: `$XDG_CACHE_HOME/lightning_vmat`, else `~/.cache/lightning_vmat`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_vmat"


def shipped_cohorts() -> list[str]:
    """Names of the packed cohorts in the package."""
    folder = Path(str(resources.files("lightning_vmat.data") / "cohorts"))
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))


def checksum(case: Case) -> str:
    """Checksum of CT, structures, jaws and wishes."""
    digest = hashlib.sha256(case.hu.to(torch.int16).numpy().tobytes())
    for name, mask in sorted(case.structures.items()):
        digest.update(name.encode() + mask.numpy().tobytes())
    if case.beamlets.jaws_mm is not None or case.wishes:
        digest.update(repr((case.beamlets.jaws_mm, sorted(case.wishes.items()))).encode())
    return digest.hexdigest()[:16]
