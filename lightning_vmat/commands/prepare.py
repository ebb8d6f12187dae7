"""`vmat prepare`: cohorts of cases with reference plans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

SizeName = Literal["tiny", "demo", "base", "clinical"]
PhantomProtocol = Literal[
    "prostate_60gy_20fx", "prostate_78gy_39fx", "prostate_boost_67gy_20fx", "prostate_nodes_68gy_25fx", "mixed"
]


def phantom(
    *,
    out: Path,
    count: int = 24,
    size: SizeName = "demo",
    seed: int = 0,
    protocol: PhantomProtocol = "prostate_60gy_20fx",
    wishes: bool | float = False,
    jaw_margin_mm: float | None = None,
    hardest: int | None = None,
    plan: bool = False,
    as_dicom: bool = False,
    jobs: int = 2,
    shard: str = "1/1",
) -> None:
    """Make a cohort of seeded prostate phantoms: the first for training, some for validation, the last fifth for test.

    Seeds 160 to 199 and above 900,000 are held out: their phantoms are for test only. Where a cohort has some, they
    are its test cases, and the others are for training and, the last eighth, for validation.

    Args:
        out: Folder of the cohort; existing cases are kept.
        count: Number of phantoms.
        size: Resolution: voxels, control points and beamlets.
        seed: Seed of the first phantom; the others follow.
        protocol: Treatment of all phantoms, so that a teacher learns one task from maps of one shape. `mixed` draws it:
            45 % 60 Gy in 20 fractions, 25 % 78 Gy in 39, 15 % with a boost, 15 % with pelvic nodes (a larger field).
        wishes: Draw wishes for three quarters of the phantoms, from their seeds: factors from 1/4 to 4 on the weights
            of rectum, bladder, femoral heads, penile bulb, bowel, conformity (`Body`) and homogeneity. A number sets
            the share of phantoms with wishes.
        jaw_margin_mm: Least distance, in mm, between the fixed jaws and the targets' voxels in the beam's-eye view.
            Default: jaws at the edges of the field.
        hardest: Keep only so many of the phantoms: half with the largest targets, half with those that overlap rectum
            and bladder most. Default: all.
        plan: Make a reference plan for each case.
        as_dicom: Write DICOM folders (CT, RTSTRUCT, and RTPLAN and RTDOSE of the plan) instead of cases.
        jobs: Number of processes.
        shard: `i/n`: make only the i-th of n parts (1 to n), so that several machines share the work.

    Raises:
        ValueError: a count, share or margin out of range, wishes with `as_dicom`, or a cohort of other settings in the
            folder.
    """
    from functools import partial

    from lightning_vmat.cases.drawn_wishes import share_of
    from lightning_vmat.cases.phantom.hardest import hardest_seeds
    from lightning_vmat.cases.phantom.phantom import phantom_name
    from lightning_vmat.cases.phantom.source import PhantomSource
    from lightning_vmat.data.cohort import split_of_seeds
    from lightning_vmat.data.preparation import own_shard, phantom_manifest, prepare, work_on_each
    from lightning_vmat.export.patient_folder import export_source
    from lightning_vmat.plan.jaws import check_jaw_margin

    if count < 1 or seed < 0:
        raise ValueError(f"count {count}, seed {seed}: expected at least 1 and 0")
    share = share_of(wishes)
    check_jaw_margin(jaw_margin_mm)
    if as_dicom and share:
        raise ValueError(f"wishes {wishes}: DICOM has no place for them, expected false with as_dicom")
    seeds: Sequence[int] = range(seed, seed + count)
    if hardest is not None:
        seeds = hardest_seeds(seeds, hardest, protocol)
    sources = [PhantomSource(number, size, protocol, share, jaw_margin_mm) for number in seeds]
    if as_dicom:
        work_on_each(partial(export_source, out=out, plan=plan), own_shard(sources, shard, jobs), jobs)
        return
    split = split_of_seeds(seeds, phantom_name)
    manifest = phantom_manifest(sources, split)
    if hardest is not None:
        manifest |= {"seeds": [seed, seed + count - 1], "hardest": hardest}
    prepare(sources, split, out, manifest, plan=plan, jobs=jobs, shard=shard)


def open_kbp(
    source: Path,
    *,
    out: Path,
    split: Literal["train", "validation", "test", "all"] = "all",
    size: SizeName = "base",
    wishes: bool | float = False,
    jaw_margin_mm: float | None = None,
    plan: bool = False,
    jobs: int = 2,
    shard: str = "1/1",
) -> None:
    """Make a cohort of head-and-neck patients of the OpenKBP challenge, with its own split.

    Args:
        source: Folder of the challenge, with `train-pats`, `validation-pats` and `test-pats`.
        out: Folder of the cohort; existing cases are kept.
        split: Patients to read.
        size: Resolution: control points and beamlets. The voxels stay as they are.
        wishes: Draw wishes for three quarters of the patients, from their names: factors from 1/4 to 4 on the weights
            of the protocol's organs that a patient has, conformity (`Body`) and homogeneity. A number sets the share
            of patients with wishes.
        jaw_margin_mm: Least distance, in mm, between the fixed jaws and the targets' voxels in the beam's-eye view.
            Default: jaws at the edges of the field.
        plan: Make a reference plan for each case.
        jobs: Number of processes.
        shard: `i/n`: make only the i-th of n parts (1 to n), so that several machines share the work.

    Raises:
        ValueError: a folder that is not laid out like the challenge's, a share of wishes or a margin out of range, or a
            cohort of other settings in `out`.
    """
    from lightning_vmat.cases.drawn_wishes import share_of
    from lightning_vmat.cases.open_kbp import SPLITS, OpenKbpSource, patient_folders
    from lightning_vmat.data.preparation import open_kbp_manifest, prepare
    from lightning_vmat.plan.jaws import check_jaw_margin

    share = share_of(wishes)
    check_jaw_margin(jaw_margin_mm)
    parts = {part: patient_folders(source, part) if split in (part, "all") else [] for part in SPLITS}
    sources = [OpenKbpSource(folder, size, share, jaw_margin_mm) for folders in parts.values() for folder in folders]
    names = {part: [folder.name for folder in folders] for part, folders in parts.items()}
    prepare(sources, names, out, open_kbp_manifest(sources, split), plan=plan, jobs=jobs, shard=shard)


def dicom(
    source: Path,
    *,
    out: Path,
    protocol: str = "prostate_60gy_20fx",
    roi_names: Path | None = None,
    size: SizeName = "base",
    use_plan: bool = True,
    machine: str = "truebeam_millennium120",
    show_identifiers: bool = False,
    plan: bool = False,
    jobs: int = 2,
    shard: str = "1/1",
) -> int:
    """Make a cohort of patients from DICOM: CT and RTSTRUCT, and RTPLAN and RTDOSE where there are some.

    Args:
        source: Folder of one patient, or folder with a subfolder for each patient. Patients that cannot be read are
            left out of the cohort and listed in `left_out.yaml` with the reason; the exit status is then 1.
        out: Folder of the cohort; existing cases are kept.
        protocol: Shipped protocol or YAML file: targets, prescription and fractions.
        roi_names: YAML file that maps ROI names to structures. Default: the shipped one, which knows usual names.
        size: Resolution: voxels, control points and beamlets.
        use_plan: Take arcs and isocentre from the RTPLAN, and keep its leaves and monitor units as the case's plan.
        machine: Shipped machine or YAML file. RTPLANs that are used must be for this machine.
        show_identifiers: Name cases by Patient ID, and keep name, ID and dates in the cohort. Default: left out.
        plan: Make a reference plan for each case.
        jobs: Number of processes.
        shard: `i/n`: make only the i-th of n parts (1 to n), so that several machines share the work.

    Returns:
        Exit status.

    Raises:
        ValueError: no patient that can be read, or a cohort of other settings in `out`.
    """
    from lightning_vmat.cases.dicom.patient_folders import named_folders
    from lightning_vmat.cases.dicom.roi_names import load_roi_names
    from lightning_vmat.cases.dicom.source import DicomSource
    from lightning_vmat.data.cohort import split_in_order
    from lightning_vmat.data.preparation import prepare
    from lightning_vmat.plan.machine import DEFAULT_MACHINE, machine_name

    names, machine = load_roi_names(roi_names), machine_name(machine)
    folders, refused = named_folders(source, show_identifiers)
    sources = [
        DicomSource(name, folder, size, protocol, names, use_plan, show_identifiers, machine)
        for name, folder in folders.items()
    ]
    manifest = {"source": "dicom", "size": size, "protocol": protocol, "use_plan": use_plan}
    manifest |= {} if machine == DEFAULT_MACHINE else {"machine": machine}
    split = split_in_order(list(folders))
    left_out = prepare(sources, split, out, manifest, plan=plan, jobs=jobs, shard=shard, refused=refused)
    for name, why in left_out.items():
        print(f"left out {name}: {why}", file=sys.stderr)
    return int(bool(left_out))


def portpy(
    source: Path,
    *,
    out: Path,
    protocol: str = "prostate_60gy_20fx",
    size: SizeName = "base",
    full: bool = False,
    plan: bool = False,
    jobs: int = 2,
    shard: str = "1/1",
) -> None:
    """Make a cohort of PortPy patients: an arc over the gantry angles that each has, and its own dose influence.

    Args:
        source: Folder of one patient, or folder with a subfolder for each patient.
        out: Folder of the cohort; existing cases are kept.
        protocol: shipped protocol or YAML; gives target, prescription and fractions.
        size: Size of the voxel sample on which plans are optimised; everything else is the patient's own.
        full: Read the full influence matrices instead of the thresholded ones.
        plan: Make a reference plan for each case.
        jobs: Number of processes.
        shard: `i/n`: make only the i-th of n parts (1 to n), so that several machines share the work.

    Raises:
        ValueError: folders that cannot be read or are no patients, or a cohort of other settings in `out`.
    """
    from lightning_vmat.cases.portpy.source import PortPySource, patient_folders
    from lightning_vmat.data.cohort import split_in_order
    from lightning_vmat.data.preparation import prepare

    sources = [PortPySource(folder, size, protocol, full) for folder in patient_folders(source)]
    manifest = {"source": "portpy", "size": size, "protocol": protocol, "full": full}
    names = [one.name for one in sources]
    prepare(sources, split_in_order(names), out, manifest, plan=plan, jobs=jobs, shard=shard)


def matrad(
    source: Path,
    *,
    out: Path,
    protocol: str | None = None,
    fractions: int = 30,
    use_isocentre: bool = True,
    size: SizeName = "base",
    machine: str = "truebeam_millennium120",
    plan: bool = False,
    jobs: int = 2,
    shard: str = "1/1",
) -> int:
    """Make a cohort of matRad or pyRadPlan patients: CT, structures and objectives of `.mat` files such as TG119.mat.

    Prints a line for each structure and objective that is left out or means something else than in matRad.

    Args:
        source: a file, or a folder of them. Files that cannot be read are left out of the cohort, listed with the
            reason in `left_out.yaml`, and the exit status is 1.
        out: folder of the cohort; cases that it already holds are kept.
        protocol: shipped protocol or YAML to use in place of each file's own objectives and prescriptions; structures
            are then found by their names.
        fractions: number of fractions where a file has no `pln`, and no protocol is given.
        use_isocentre: take the isocentre of `pln` or `stf`; else it is the centre of the targets.
        size: voxels, control points and beamlets.
        machine: shipped machine or YAML of another.
        plan: give each case a reference plan.
        jobs: processes.
        shard: `i/n` to make only the i-th of n parts (1 to n), so that several machines share the work.

    Returns:
        Exit status.

    Raises:
        ValueError: no file that can be read, a number of fractions that is not positive, or a cohort of other settings
            in `out`.
    """
    from lightning_vmat.cases.matrad.source import MatradSource, patient_files, read_notes
    from lightning_vmat.data.cohort import split_in_order
    from lightning_vmat.data.preparation import prepare
    from lightning_vmat.plan.machine import DEFAULT_MACHINE, machine_name

    if fractions < 1:
        raise ValueError(f"fractions {fractions}: expected at least 1")
    machine = machine_name(machine)
    sources = [MatradSource(path, size, protocol, fractions, use_isocentre, machine) for path in patient_files(source)]
    manifest: dict[str, object] = {"source": "matrad", "size": size, "protocol": protocol or "own"}
    manifest |= {} if protocol else {"fractions": fractions}
    manifest |= {"use_isocentre": use_isocentre} | ({} if machine == DEFAULT_MACHINE else {"machine": machine})
    names = [one.name for one in sources]
    left_out = prepare(sources, split_in_order(names), out, manifest, plan=plan, jobs=jobs, shard=shard, refused={})
    for name in names:
        for note in read_notes(out / name):
            print(f"{name}: {note}")
    for name, why in left_out.items():
        print(f"left out {name}: {why}", file=sys.stderr)
    return int(bool(left_out))


def pack(cohort: Path, *, out: Path, join: Path | None = None) -> None:
    """Pack planned phantoms into one small file: seeds, checksums, leaves to 0.1 mm, monitor units to 0.1 %.

    Args:
        cohort: Folder that `vmat prepare phantom` made with plans, complete or not; cases without a plan are left out.
        out: File to write (.safetensors).
        join: Another such folder, or a file that this command wrote, of the same settings; its cases come first.

    Raises:
        ValueError: no such cohort, cases that are no phantoms, no plan at all, other settings, or another kind of file.
    """
    from lightning_vmat.data.packed import SUFFIX, write_pack

    if out.suffix != SUFFIX:
        raise ValueError(f"{out}: expected a file ending in {SUFFIX}")
    write_pack([cohort] if join is None else [join, cohort], out)


def unpack(cohort: str, *, out: Path, jobs: int = 2, shard: str = "1/1") -> None:
    """Make the cases of a packed cohort again from their seeds, bit for bit, with their rounded plans.

    Args:
        cohort: File that `vmat prepare pack` wrote, or the name of a shipped cohort.
        out: Folder of the cohort; existing cases are kept.
        jobs: Number of processes.
        shard: `i/n`: make only the i-th of n parts (1 to n), so that several machines share the work.

    Raises:
        ValueError: no such file, or phantoms that come out otherwise than those that were planned.
    """
    from lightning_vmat.data import packed

    packed.unpack(cohort, out, jobs=jobs, shard=shard)


def sheet(cohort: Path, *, out: Path, count: int = 12) -> None:
    """Draw slices of the first cases of a cohort, with the outlines of their structures.

    Args:
        cohort: Folder that `vmat prepare` wrote.
        out: Image file to write (.png, .pdf or .svg).
        count: Number of cases to draw.

    Raises:
        ValueError: no such cohort, no cases, another kind of file, or a count that is not positive.
    """
    from lightning_vmat.cases.case_files import read_case
    from lightning_vmat.data.cohort import SPLITS, read_cohort
    from lightning_vmat.export.case_sheet import draw_sheet

    if count < 1 or out.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"count {count}, {out}: expected at least 1, and a file ending in .png, .pdf or .svg")
    whole = read_cohort(cohort)
    folders = [folder for part in SPLITS if whole.split[part] for folder in whole.folders(part)]
    draw_sheet([read_case(folder) for folder in folders[:count]], out)
