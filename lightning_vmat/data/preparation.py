"""Making the cases of a cohort: several at a time, each whole or not at all, those already there kept."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lightning_vmat import __version__
from lightning_vmat.data.case_files import CASE_FILE, PLAN_FILE, read_case, write_case
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.open_kbp import read_open_kbp
from lightning_vmat.data.phantom import make_phantom, phantom_name
from lightning_vmat.data.plan_files import write_plan
from lightning_vmat.data.sizes import get_size
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.members import reference_planner


@dataclass(frozen=True)
class Loaded:
    """A case as it comes from its source.

    Args:
        case: the case.
        doses: to keep with it, by file name without suffix.
        plan: that it was treated with; kept as its plan unless a reference plan is asked for.
        texts: small files to keep with it, by name.
    """

    case: Case
    doses: dict[str, Float[Tensor, "z y x"]] = field(default_factory=dict)
    plan: Plan | None = None
    texts: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where one case comes from."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> str: ...

    def load(self) -> Loaded:
        """The case, and what to keep with it."""
        ...


@dataclass(frozen=True)
class PhantomSource:
    """The phantom of a seed."""

    seed: int
    size: str
    protocol: str = "prostate_60gy_20fx"

    @property
    def name(self) -> str:
        return phantom_name(self.seed)

    def load(self) -> Loaded:
        return Loaded(make_phantom(self.seed, self.size, self.protocol))


@dataclass(frozen=True)
class OpenKbpSource:
    """A patient's folder; the clinical dose is kept as `clinical_dose.nii.gz`."""

    folder: Path
    size: str

    @property
    def name(self) -> str:
        return self.folder.name

    def load(self) -> Loaded:
        case, dose_gy = read_open_kbp(self.folder, self.size)
        return Loaded(case, {"clinical_dose": dose_gy})


def prepare(
    sources: Sequence[Source],
    split: dict[str, list[str]],
    out: Path,
    manifest: Mapping[str, object],
    *,
    plan: bool,
    jobs: int,
    shard: str,
) -> None:
    """Make a cohort, or one shard of it.

    Args:
        sources: all cases of the cohort.
        split: names of the cases for each purpose.
        out: folder of the cohort.
        manifest: what tells this cohort from another.
        plan: give each case a reference plan.
        jobs: processes.
        shard: `i/n`, the i-th (from 1) of n parts.

    Raises:
        ValueError: bad input, by file; a cohort of other settings in `out`. Finished cases stay.
    """
    mine = own_shard(sources, shard, jobs)
    Cohort(out, split).write({**manifest, "package_version": __version__, "planned": plan})
    work_on_each(partial(prepare_case, out=out, plan=plan), mine, jobs)


def work_on_each(work: Callable[[Source], str], mine: Sequence[Source], jobs: int) -> None:
    """Do something with each source, several at a time, with a progress bar.

    Args:
        work: takes a source and returns its name; picklable.
        mine: the sources.
        jobs: processes.
    """
    with tqdm(total=len(mine), desc="cases", unit="case") as bar:
        for name in _each(work, mine, min(jobs, len(mine))):
            bar.set_postfix_str(name)
            bar.update()


def prepare_case(source: Source, out: Path, plan: bool) -> str:
    """Make one case with what is asked for, unless it is there; its name."""
    folder = out / source.name
    if not (folder / CASE_FILE).is_file():
        loaded = source.load()
        treated = (loaded.plan, {"planner": "clinical"} if loaded.plan is not None else None)
        kept, metadata = reference_plan(loaded.case, source.size) if plan else treated
        write_case(loaded.case, folder, plan=kept, metadata=metadata, doses=loaded.doses, texts=loaded.texts)
    elif plan and not (folder / PLAN_FILE).is_file():
        reference, metadata = reference_plan(read_case(folder), source.size)
        write_plan(reference, folder / PLAN_FILE, metadata)
    return source.name


def reference_plan(case: Case, size: str) -> tuple[Plan, dict[str, object]]:
    """A plan of the reference planner, and how it was made."""
    result = reference_planner(voxels=get_size(size).optimised_voxels).plan(case)
    if result.plan is None:
        raise ValueError(f"case {case.case_id}: the reference planner gave no deliverable plan")
    metadata: dict[str, object] = {
        "planner": "reference",
        "package_version": __version__,
        "seconds": result.trace.seconds,
        "dose_evaluations": result.trace.dose_evaluations,
        "objective": result.trace.points[-1].objective,
    }
    return result.plan, metadata


def own_shard(sources: Sequence[Source], shard: str, jobs: int) -> list[Source]:
    """The sources of one shard.

    Raises:
        ValueError: a shard that is not `i/n`, or no processes.
    """
    if jobs < 1:
        raise ValueError(f"jobs {jobs}: expected at least 1")
    number, _, total = shard.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise ValueError(f"shard {shard!r}: expected i/n with i from 1 to n")
    return list(sources[int(number) - 1 :: int(total)])


def _each(work: Any, sources: Sequence[Source], jobs: int) -> Iterator[str]:
    """Results as they come, from fresh processes with one thread each, or from this one."""
    if jobs <= 1:
        yield from map(work, sources)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    pool = ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for done in as_completed([pool.submit(work, source) for source in sources]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)
