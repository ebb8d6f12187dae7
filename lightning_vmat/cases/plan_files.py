"""Reads and writes plans (safetensors) and doses (NIfTI)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.cases.nifti import check_same_grid, read_volume, write_volume
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid

PLAN_VERSION = 1


def write_plan(plan: Plan, path: Path, metadata: Mapping[str, object] | None = None) -> None:
    """Write leaf tips and monitor units as safetensors, whole or not at all.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> result = vmat.planner("conventional", voxels=300).plan(vmat.phantom(0, size="tiny"))
    >>> vmat.write_plan(result.plan, Path("plan.safetensors"), {"planner": result.planner})
    >>> plan, metadata = vmat.read_plan(Path("plan.safetensors"))
    >>> bool((plan.mu == result.plan.mu).all()), metadata["planner"]
    (True, 'conventional')

    Args:
        plan: leaf tips in mm and monitor units of one fraction.
        path: file to write.
        metadata: how the plan was made, stored as JSON in the header.
    """
    tensors = {name: value.detach().cpu().float().contiguous() for name, value in vars(plan).items()}
    header = {"plan_version": str(PLAN_VERSION), "metadata": json.dumps(dict(metadata or {}))}
    with atomic_file(path) as draft:
        draft.write_bytes(same_bytes(tensors, header))


def plan_metadata(case: Case, planner: str) -> dict[str, object]:
    """Metadata of a plan: case, planner, version, wishes, and the machine and beams that it was made for."""
    return {
        "case": case.case_id,
        "planner": planner,
        "package_version": __version__,
        "machine": case.machine_name,
        "arcs": [asdict(arc) for arc in case.arcs],
        "isocentre_mm": list(case.isocentre_mm),
        "jaws_mm": list(case.beamlets.field_mm),
        "wishes": dict(case.wishes),
        "gantry_slowdown": case.gantry_slowdown,
    }


def same_bytes(tensors: dict[str, Tensor], header: dict[str, str]) -> bytes:
    """Bytes of a safetensors file with sorted header keys; `save` writes them in arbitrary order."""
    content = save(tensors, metadata=header)
    length = int.from_bytes(content[:8], "little")
    ordered = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + length :]


def read_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """Read a plan.

    >>> from pathlib import Path
    >>> import lightning_vmat as vmat
    >>> case = vmat.phantom(0, size="tiny")
    >>> vmat.write_plan(vmat.planner("conventional", voxels=300).plan(case).plan, Path("plan.safetensors"))
    >>> plan, metadata = vmat.read_plan(Path("plan.safetensors"))
    >>> plan
    Plan of 12 control points, 8 leaf pairs, ... MU

    Args:
        path: file that `write_plan` or `vmat plan` wrote.

    Returns:
        The plan, and its metadata.

    Raises:
        ValueError: a file that is missing, truncated, of another version, or whose tensors do not make a plan.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a plan (safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            stored = file.keys()
            tensors = {name: file.get_tensor(name) for name in stored}
        metadata = json.loads(header.get("metadata", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a readable plan ({' '.join(str(error).split())})") from error
    if header.get("plan_version") != str(PLAN_VERSION):
        raise ValueError(f"{path}: plan version {header.get('plan_version')}, expected {PLAN_VERSION}")
    names = ("left_mm", "right_mm", "mu")
    if set(tensors) != set(names):
        raise ValueError(f"{path}: tensors {sorted(tensors)}, expected {sorted(names)}")
    plan = Plan(*(tensors[name] for name in names))
    if plan.left_mm.shape != plan.right_mm.shape or plan.mu.shape != plan.left_mm.shape[:1]:
        raise ValueError(f"{path}: shapes {[tuple(tensors[n].shape) for n in names]}, do not fit together")
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise ValueError(f"{path}: NaN or infinite numbers, expected finite ones")
    return plan, metadata


def write_dose(dose_gy: Float[Tensor, "z y x"], grid: VolumeGrid, path: Path) -> None:
    """Write the dose of the whole course, Gy, as NIfTI."""
    with atomic_file(path) as draft:
        write_volume(dose_gy.float(), grid, draft)


def read_dose(path: Path, grid: VolumeGrid) -> Float[Tensor, "z y x"]:
    """Read the dose of the whole course, Gy.

    Raises:
        ValueError: an unreadable file, NaN, negative dose, or a grid other than the case's.
    """
    dose_gy, found = read_volume(path)
    check_same_grid(found, grid, path)
    if not bool(dose_gy.isfinite().all()) or float(dose_gy.min()) < 0:
        raise ValueError(f"{path}: NaN, infinite or negative dose, expected Gy")
    return dose_gy.to(torch.float32)
