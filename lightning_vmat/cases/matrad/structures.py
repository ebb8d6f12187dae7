"""The structures of a matRad patient: the rows of `cst`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_vmat.cases.dicom.roi_names import RoiNames, plain
from lightning_vmat.cases.matrad.ct import number, numbers
from lightning_vmat.cases.matrad.mat_files import records
from lightning_vmat.plan.case import BODY

KINDS = ("TARGET", "OAR", "EXTERNAL", "HELPER", "IGNORED")
COLUMNS = "index, name, type, voxels, parameters and perhaps objectives"


@dataclass(frozen=True)
class Voi:
    """A volume of interest, one row of `cst`.

    Args:
        row: its number, from 1.
        name: as its author called it.
        kind: one of `KINDS`.
        priority: overlap priority; where volumes overlap, the one with the smaller number has the voxels.
        mask: `[z, y, x]`.
        objectives: entries of its column of objectives, as stored.
    """

    row: int
    name: str
    kind: str
    priority: float
    mask: NDArray[np.bool_]
    objectives: tuple[Any, ...]


def read_vois(stored: Any, shape: tuple[int, int, int]) -> list[Voi]:
    """The rows of `cst`.

    Args:
        stored: the cell array.
        shape: voxels along z, y, x.

    Raises:
        ValueError: the row and column that is missing, or voxels that the CT lacks.
    """
    rows = stored if isinstance(stored, list) else []
    rows = rows if rows and isinstance(rows[0], list) else [rows]  # of one structure, the table is flat
    if not rows[0]:
        raise ValueError(f"cst is a {type(stored).__name__} or empty, expected a cell array of {COLUMNS}")
    return [_voi(number, row, shape) for number, row in enumerate(rows, start=1)]


def _voi(at: int, row: Sequence[Any], shape: tuple[int, int, int]) -> Voi:
    if len(row) < 5:
        raise ValueError(f"cst row {at} has {len(row)} columns, expected {COLUMNS}")
    _, name, kind, voxels, parameters, *rest = row
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"cst{{{at},2}} is a {type(name).__name__} or empty, expected the structure's name")
    if kind not in KINDS:
        raise ValueError(f"cst{{{at},3}} of {name!r} is {kind!r}, expected one of {', '.join(KINDS)}")
    objectives = tuple(one for one in records(rest[0] if rest else None) if records(one))
    priority = parameters.get("Priority") if isinstance(parameters, Mapping) else None
    if priority is None and objectives:
        raise ValueError(f"cst{{{at},5}} of {name!r} has no Priority, expected a number for each with objectives")
    return Voi(
        at,
        name.strip(),
        kind,
        np.inf if priority is None else number(priority, f"cst{{{at},5}}.Priority"),
        _mask(voxels, shape, f"cst{{{at},4}} of {name!r}"),
        objectives,
    )


def _mask(voxels: Any, shape: tuple[int, int, int], where: str) -> NDArray[np.bool_]:
    """The voxels of the first scenario; MATLAB numbers from 1, along y, then x, then z."""
    found = records(voxels)
    index = numbers(found[0], where) if found else np.empty(0)
    nz, ny, nx = shape
    count = nz * ny * nx
    if len(index) and not ((index == np.rint(index)).all() and index.min() >= 1 and index.max() <= count):
        raise ValueError(
            f"{where} holds voxels {index.min():g} to {index.max():g}, expected whole numbers from 1 to {count}"
        )
    mask = np.zeros(count, bool)
    mask[index.astype(np.int64) - 1] = True
    return np.ascontiguousarray(mask.reshape(nz, nx, ny).swapaxes(1, 2))


def body_voi(vois: Sequence[Voi], names: RoiNames) -> Voi | None:
    """The patient's outline: the one of type EXTERNAL, else the one with a usual name for it.

    Raises:
        ValueError: several that fit equally well.
    """
    drawn = [voi for voi in vois if voi.mask.any()]
    exact = [pattern for pattern in names.body if not re.search(r"[.<]", pattern)]
    rounds = [[voi for voi in drawn if voi.kind == "EXTERNAL"]]
    rounds += [[voi for voi in drawn if re.fullmatch(pattern, plain(voi.name))] for pattern in exact]
    found: list[Voi] = next(filter(None, rounds), [])
    if len(found) > 1:
        raise ValueError(f"cst: {', '.join(voi.name for voi in found)} are all the patient's outline, expected one")
    return found[0] if found else None


def structure_names(vois: Sequence[Voi], body: Voi | None) -> dict[int, str]:
    """A name for each row that files can have too, unlike any other's; `Body` for the outline."""
    names: dict[int, str] = {} if body is None else {body.row: BODY}
    for voi in vois:
        if voi is not body:
            name = re.sub(r"[^\w -]+", "_", voi.name).strip() or "structure"
            taken = {used.casefold() for used in (*names.values(), BODY)}
            names[voi.row] = f"{name}_{voi.row}" if name.casefold() in taken else name
    return names
