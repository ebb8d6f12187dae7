"""A case as a folder that 3D Slicer opens: `ct.nii.gz`, `structures/<name>.nii.gz`, `case.yaml`, and perhaps a plan
and a stored influence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.nifti import check_same_grid, read_volume, write_volume
from lightning_vmat.cases.plan_files import write_dose, write_plan
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.files.atomic import atomic_folder
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case, is_protocol_text
from lightning_vmat.plan.checks import check_kinds, check_values, is_number
from lightning_vmat.plan.wishes import check_wishes

CASE_VERSION = 1
CASE_FILE, CT_FILE, STRUCTURES = "case.yaml", "ct.nii.gz", "structures"
INFLUENCE_FILE = "influence.safetensors"
PROTOCOL_FILE = "protocol.yaml"  # of a case with a protocol of its own
PLAN_FILE, DOSE_FILE, CLINICAL_DOSE_FILE = "plan.safetensors", "dose.nii.gz", "clinical_dose.nii.gz"
STRUCTURE_NAME = r"[\w-][\w -]*"
NEEDED = {"version", "case_id", "source", "prescription_gy", "fractions", "isocentre_mm", "arcs", "beamlets", "machine"}
NEEDED |= {"protocol", "structures"}
OPTIONAL = {"wishes", "gantry_slowdown"}
KINDS = {"structures": list, "arcs": list, "isocentre_mm": list, "prescription_gy": dict, "beamlets": dict}
LEAF_EDGE_MM = 1e-3  # tolerance between the edges of beamlet rows and leaf boundaries


def write_case(
    case: Case,
    folder: str | Path,
    *,
    plan: Plan | None = None,
    metadata: Mapping[str, object] | None = None,
    doses: Mapping[str, Float[Tensor, "z y x"]] | None = None,
    influence: StoredInfluence | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a case, whole or not at all.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> vmat.write_case(vmat.phantom(0, size="tiny"), Path("phantom"))
    >>> sorted(path.name for path in Path("phantom").iterdir())
    ['case.yaml', 'ct.nii.gz', 'structures']

    Args:
        case: the case.
        folder: folder to write; it must not exist, or be empty.
        plan: plan to store with the case.
        metadata: how the plan was made, stored with the plan.
        doses: doses of the whole course, Gy, to store with the case, by file name without suffix.
        influence: dose influence on the voxels of the case's grid.
        texts: small text files to store with the case, by name.

    Raises:
        ValueError: the folder exists and is not empty.
    """
    with atomic_folder(Path(folder)) as draft:
        write_volume(case.hu, case.grid, draft / CT_FILE)
        (draft / STRUCTURES).mkdir()
        for name, mask in case.structures.items():
            write_volume(mask, case.grid, draft / STRUCTURES / f"{name}.nii.gz")
        if plan is not None:
            write_plan(plan, draft / PLAN_FILE, metadata)
        for name, dose_gy in (doses or {}).items():
            write_dose(dose_gy, case.grid, draft / f"{name}.nii.gz")
        if influence is not None:
            influence.save(draft / INFLUENCE_FILE)
            (draft / INFLUENCE_FILE).chmod(0o644)
        for name, text in (texts or {}).items():
            (draft / name).write_text(text, encoding="utf-8")
        settings = _settings(case)
        if (own := _own_protocol(case.protocol)) is not None:
            (draft / PROTOCOL_FILE).write_text(own, encoding="utf-8")
            settings["protocol"] = PROTOCOL_FILE
        (draft / CASE_FILE).write_text(yaml.safe_dump(settings, sort_keys=False))


def read_case(folder: Path) -> Case:
    """Read and check a case.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    hu, grid = read_volume(folder / CT_FILE)
    structures = {}
    for name in settings["structures"]:
        if not isinstance(name, str) or not re.fullmatch(STRUCTURE_NAME, name):
            raise ValueError(f"{folder / CASE_FILE}: structure name {name!r}, expected letters, digits, _ and -")
        path = folder / STRUCTURES / f"{name}.nii.gz"
        mask, found = read_volume(path)
        check_same_grid(found, grid, path)
        if not mask.isfinite().all():
            raise ValueError(f"{path}: NaN or infinite values, expected a mask of 0 and 1")
        structures[name] = mask > 0.5
    try:
        plain = {key: settings[key] for key in settings if key in ("fractions", "isocentre_mm", "gantry_slowdown")}
        case = Case(
            case_id=str(settings["case_id"]),
            source=str(settings["source"]),
            grid=grid,
            hu=hu.to(torch.float32),
            structures=structures,
            prescription_gy=_prescription_gy(settings["prescription_gy"]),
            arcs=arcs_of(settings),
            beamlets=_beamlets(settings),
            machine_name=str(settings["machine"]),
            protocol=_protocol(folder, str(settings["protocol"])),
            wishes=check_wishes(settings.get("wishes", {}), f"case {settings['case_id']}"),
            influence_path=influence if (influence := folder / INFLUENCE_FILE).is_file() else None,
            **check_kinds(Case, plain, f"case {settings['case_id']}"),
        )
        check_beams(case)
    except ValueError as error:
        raise ValueError(f"{folder / CASE_FILE}: {' '.join(str(error).split())}") from error
    return case


def read_settings(folder: Path) -> dict[str, Any]:
    """Read `case.yaml` only, no volumes.

    Raises:
        ValueError: no case, broken YAML, another version, a missing or unknown key, or a value that should be a list.
    """
    path = Path(folder) / CASE_FILE
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a case folder")
    settings = read_mapping(path)
    if settings.get("version") != CASE_VERSION:
        raise ValueError(f"{path}: case version {settings.get('version')!r}, expected {CASE_VERSION}")
    if missing := sorted(NEEDED - set(settings)):
        raise ValueError(f"{path}: {', '.join(missing)} missing, expected all keys of a case")
    for key in settings:
        if key not in NEEDED | OPTIONAL:
            raise ValueError(f"{path}: unknown key {key!r}, expected {', '.join(sorted(NEEDED | OPTIONAL))}")
    for key, kind in KINDS.items():
        if not isinstance(settings[key], kind):
            expected = "a list" if kind is list else "keys and values"
            raise ValueError(f"{path}: {key} is {settings[key]!r}, expected {expected}")
    return settings


def read_fluence_shape(folder: Path) -> tuple[int, int, int]:
    """Read the shape of a case's fluence maps (control_point, leaf_pair, beamlet) from `case.yaml`, without volumes.

    Raises:
        ValueError: see `read_settings`; arcs or beamlets that are none.
    """
    settings = read_settings(folder)
    try:
        arcs, beamlets = arcs_of(settings), _beamlets(settings)
    except ValueError as error:
        raise ValueError(f"{folder / CASE_FILE}: {' '.join(str(error).split())}") from error
    return sum(arc.control_points for arc in arcs), *beamlets.shape


def arcs_of(settings: Mapping[str, Any]) -> tuple[Arc, ...]:
    """The arcs in a case's settings or a plan's metadata.

    Raises:
        ValueError: a missing or unknown key, or a value of the wrong kind.
    """
    return tuple(Arc(**check_values(Arc, arc, "arc")) for arc in settings["arcs"])


def check_beams(case: Case) -> None:
    """Raise a ValueError for an unknown machine, no arcs, rows that cut leaves, or an isocentre outside the CT."""
    _ = case.control_points
    machine = case.machine
    for edge in case.beamlets.leaf_edges_mm:
        if min(abs(edge - boundary) for boundary in machine.leaf_edges_mm) > LEAF_EDGE_MM:
            raise ValueError(
                f"beamlets: leaf_edges_mm holds {edge}, expected leaf boundaries of machine {machine.name} "
                f"({machine.leaf_edges_mm[0]} to {machine.leaf_edges_mm[-1]} mm)"
            )
    x, y, z = case.grid.index_coordinates(torch.tensor(case.isocentre_mm)).tolist()
    nz, ny, nx = case.grid.shape
    if not (-0.5 <= x <= nx - 0.5 and -0.5 <= y <= ny - 0.5 and -0.5 <= z <= nz - 0.5):
        raise ValueError(f"case {case.case_id}: isocentre {case.isocentre_mm} mm lies outside the CT {case.grid}")


def _settings(case: Case) -> dict[str, object]:
    return {
        "version": CASE_VERSION,
        "case_id": case.case_id,
        "source": case.source,
        "prescription_gy": dict(case.prescription_gy),
        "fractions": case.fractions,
        "isocentre_mm": [float(value) for value in case.isocentre_mm],
        "arcs": [asdict(arc) for arc in case.arcs],
        "beamlets": {**asdict(case.beamlets), "leaf_edges_mm": list(case.beamlets.leaf_edges_mm)},
        "machine": case.machine_name,
        "protocol": case.protocol,
        "structures": list(case.structures),
        "wishes": dict(case.wishes),
        "gantry_slowdown": case.gantry_slowdown,
    }


def _beamlets(settings: Mapping[str, Any]) -> BeamletGrid:
    return BeamletGrid(**check_values(BeamletGrid, settings["beamlets"], "beamlets"))


def _own_protocol(protocol: str) -> str | None:
    """The YAML of a protocol that belongs to its case alone: as text, or in the folder of a case that was read."""
    if is_protocol_text(protocol):
        return protocol
    path = Path(protocol)
    is_own = path.name == PROTOCOL_FILE and (path.parent / CASE_FILE).is_file()
    return path.read_text(encoding="utf-8") if is_own and path.is_file() else None


def _protocol(folder: Path, protocol: str) -> str:
    """A protocol's name or path; a case's own is in its folder, wherever that is."""
    if protocol != PROTOCOL_FILE:
        return protocol
    if not (folder / PROTOCOL_FILE).is_file():
        raise ValueError(f"no {PROTOCOL_FILE} beside it, expected the case's own protocol")
    return str(folder / PROTOCOL_FILE)


def _prescription_gy(settings: dict[Any, Any]) -> dict[str, float]:
    for name, dose_gy in settings.items():
        if not is_number(dose_gy):
            raise ValueError(f"prescription_gy is {dose_gy!r} for {name}, expected a finite number")
    return {str(name): float(dose_gy) for name, dose_gy in settings.items()}
