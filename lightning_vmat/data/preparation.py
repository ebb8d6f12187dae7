"""Makes the cases of a cohort: in parallel, each whole or not at all. Existing cases are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lightning_vmat.cases.case_files import CASE_FILE, PLAN_FILE, read_case, write_case
from lightning_vmat.cases.drawn_wishes import wishes_manifest
from lightning_vmat.cases.open_kbp import PROTOCOL, OpenKbpSource
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
    """The manifest of a cohort of phantoms: seeds, settings, and the versions of anatomy and protocols.

    Args:
        sources: the phantoms, of consecutive seeds and the same settings.
        split: names of the cases of each split; validation and test cases are listed.
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


def open_kbp_manifest(sources: Sequence[OpenKbpSource], split: str) -> dict[str, object]:
    """The manifest of a cohort of OpenKBP patients of the same settings.

    Args:
        sources: the patients.
        split: the part of the challenge that is read, or `all`.
    """
    first = sources[0]
    return {
        "source": "open-kbp",
        "size": first.size,
        "split": split,
        "jaw_margin_mm": first.jaw_margin_mm,
        "wishes": wishes_manifest(first.wishes_share, first.wish_names),
        "protocol_versions": {PROTOCOL: protocol_checksum(PROTOCOL)},
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
    """Make a cohort, or one shard of it. Existing cases are kept, so that a killed run continues.

    Args:
        sources: all cases of the cohort.
        split: names of the cases of each split.
        out: folder of the cohort.
        manifest: settings that identify the cohort.
        plan: make a reference plan for each case.
        jobs: number of processes.
        shard: `i/n`, the i-th (from 1) of n parts.
        refused: errors of unreadable sources, by name. If given, sources whose loading fails are left out too,
            and the others form the cohort.

    Returns:
        Reasons of left-out sources, by name.

    Raises:
        ValueError: bad input (names the file), no readable source, or a cohort of other settings or versions in `out`.
            Finished cases are kept, but the folder is a cohort only when it is complete.
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
    """Apply a function to each source, in parallel, and show the progress.

    Args:
        work: function from a source to its name; picklable.
        mine: sources to process.
        jobs: number of processes.
    """
    with Progress(len(mine), "cases") as progress:
        for name in in_processes(work, mine, min(jobs, len(mine))):
            progress.advance(note=name)


def prepare_case(source: Source, out: Path, plan: bool, lenient: bool = False) -> str:
    """Make one case, with a plan if requested, unless it exists. Returns its name.

    Args:
        source: source of the case.
        out: folder of the cohort.
        plan: make a reference plan.
        lenient: write a note instead of raising if the source cannot be read.
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
    """The case with the derived structures of its protocol; cases from DICOM have them already, from finer voxels."""
    derived = load_protocol(case.protocol).derived
    return with_derived(case, derived) if derived and case.source != "dicom" else case


def _clear_drafts(folder: Path) -> None:
    """Remove partial folders of a case that a killed run left behind."""
    for draft in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(draft, ignore_errors=True)
    for draft in folder.glob(f".*.{PLAN_FILE}"):
        draft.unlink(missing_ok=True)


def own_shard(sources: Sequence[Source], shard: str, jobs: int) -> list[Source]:
    """The sources of one shard.

    Raises:
        ValueError: a shard that is not `i/n`, or fewer than one process.
    """
    if jobs < 1:
        raise ValueError(f"jobs {jobs}: expected at least 1")
    number, _, total = shard.partition("/")
    if not (number.isdigit() and total.isdigit() and 1 <= int(number) <= int(total)):
        raise ValueError(f"shard {shard!r}: expected i/n with i from 1 to n")
    return list(sources[int(number) - 1 :: int(total)])
