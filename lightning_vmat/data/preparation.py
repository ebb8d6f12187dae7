"""Making the cases of a cohort: several at a time, each whole or not at all, those already there kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lightning_vmat.cases.case_files import CASE_FILE, PLAN_FILE, read_case, write_case
from lightning_vmat.cases.phantom.drawn_wishes import wishes_manifest
from lightning_vmat.cases.phantom.phantom import MIXED, PHANTOM_VERSION, SHARES
from lightning_vmat.cases.phantom.source import PhantomSource
from lightning_vmat.cases.plan_files import write_plan
from lightning_vmat.cases.source import Source
from lightning_vmat.data import left_out
from lightning_vmat.data.cohort import Cohort
from lightning_vmat.data.parallel import in_processes
from lightning_vmat.data.reference_plans import planner_settings, reference_plan
from lightning_vmat.objectives.derived import with_derived
from lightning_vmat.objectives.protocol import load_protocol, protocol_checksum
from lightning_vmat.plan.case import Case
from lightning_vmat.progress import Progress


def phantom_manifest(sources: Sequence[PhantomSource], split: Mapping[str, list[str]]) -> dict[str, object]:
    """What tells one cohort of phantoms from another: seeds, settings, and the versions of anatomy and protocols.

    Args:
        sources: the phantoms, of consecutive seeds and the same settings.
        split: names of the cases for each purpose; those not for training are listed.
    """
    first, protocol = sources[0], sources[0].protocol
    protocols = SHARES if protocol == MIXED else (protocol,)
    versions = {name: protocol_checksum(name) for name in protocols}
    return {
        "source": "phantom",
        "size": first.size,
        "protocol": protocol,
        "seeds": [first.seed, sources[-1].seed],
        "jaw_margin_mm": first.jaw_margin_mm,
        "wishes": wishes_manifest(first.wishes_share),
        "validation": list(split["validation"]),
        "test": list(split["test"]),
        "phantom_version": PHANTOM_VERSION,
        "protocol_versions": versions,
    }


def prepare(
    sources: Sequence[Source],
    split: dict[str, list[str]],
    out: Path,
    manifest: Mapping[str, object],
    *,
    plan: bool,
    jobs: int,
    shard: str,
    refused: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make a cohort, or one shard of it; what is there already is kept, so that a killed run goes on.

    Args:
        sources: all cases of the cohort.
        split: names of the cases for each purpose.
        out: folder of the cohort.
        manifest: what tells this cohort from another.
        plan: give each case a reference plan.
        jobs: processes.
        shard: `i/n`, the i-th (from 1) of n parts.
        refused: by name, why other sources cannot be read; when given, sources whose loading fails are left out too,
            and the others make the cohort.

    Returns:
        By name, why sources were left out.

    Raises:
        ValueError: bad input, by file, or every source left out; a cohort of other settings or versions in `out`.
            Finished cases stay, but without all of them the folder does not count as a cohort.
    """
    mine = own_shard(sources, shard, jobs)
    lenient = refused is not None
    planner = planner_settings(sources[0].size) if plan else manifest.get("planner")
    with Cohort(out, split).under_way({**manifest, "planner": planner}):
        for name, why in (refused or {}).items():
            left_out.note(out, name, why)
        work_on_each(partial(prepare_case, out=out, plan=plan, lenient=lenient), mine, jobs)
        reasons = left_out.left_out(out)
    if all(source.name in reasons for source in sources):
        first, *others = reasons.values()
        raise ValueError(f"{first} (and {len(others)} more patients)" if others else first)
    return reasons


def work_on_each(work: Callable[[Source], str], mine: Sequence[Source], jobs: int) -> None:
    """Do something with each source, several at a time, and show the progress.

    Args:
        work: takes a source and returns its name; picklable.
        mine: the sources.
        jobs: processes.
    """
    with Progress(len(mine), "cases") as progress:
        for name in in_processes(work, mine, min(jobs, len(mine))):
            progress.advance(note=name)


def prepare_case(source: Source, out: Path, plan: bool, lenient: bool = False) -> str:
    """Make one case with what is asked for, unless it is there; its name.

    Args:
        source: of the case.
        out: folder of the cohort.
        plan: give it a reference plan.
        lenient: leave a note in place of a case that cannot be read.
    """
    folder = out / source.name
    _clear_drafts(folder)
    left_out.forget(out, source.name)
    if not (folder / CASE_FILE).is_file():
        try:
            loaded = source.load()
        except ValueError as error:
            if not lenient:
                raise
            left_out.note(out, source.name, str(error))
            return source.name
        write_case(
            _with_derived(loaded.case),
            folder,
            plan=None if plan else loaded.plan,
            metadata=loaded.plan_metadata,
            doses=loaded.doses,
            influence=loaded.influence,
            texts=loaded.texts,
        )
    if plan and not (folder / PLAN_FILE).is_file():
        reference, metadata = reference_plan(read_case(folder), source.size)
        write_plan(reference, folder / PLAN_FILE, metadata)
    return source.name


def _with_derived(case: Case) -> Case:
    """A case with the structures that its protocol makes; those from DICOM have them, made on finer voxels."""
    derived = load_protocol(case.protocol).derived
    return with_derived(case, derived) if derived and case.source != "dicom" else case


def _clear_drafts(folder: Path) -> None:
    """Remove what a killed run had begun to write of a case."""
    for draft in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(draft, ignore_errors=True)
    for draft in folder.glob(f".*.{PLAN_FILE}"):
        draft.unlink(missing_ok=True)


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
