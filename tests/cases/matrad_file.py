"""A small patient in the files of matRad and pyRadPlan, as MATLAB 5 and 7.3 lay them out."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

NX, NY, NZ = 24, 20, 16
SPACING_MM = (5.0, 6.0, 7.0)
FIRST_MM = (-60.0, -75.0, 110.0)
X, Y, Z = (first + step * np.arange(n) for first, step, n in zip(FIRST_MM, SPACING_MM, (NX, NY, NZ), strict=True))
WATER_HU, BONE_HU = 20.0, 500.0
NUMBERS = count()

Box = tuple[range, range, range]  # columns (x), rows (y) and slices (z), from 0
BODY: Box = (range(1, 23), range(1, 19), range(1, 15))
PTV: Box = (range(8, 15), range(7, 13), range(5, 10))
CORE: Box = (range(10, 13), range(9, 14), range(6, 9))  # half in the PTV, half behind it
CORNER: Box = (range(18, 22), range(2, 5), range(11, 14))  # left, anterior, superior


def linear(box: Box) -> NDArray[np.float64]:
    """MATLAB's numbers of voxels: from 1, along rows, then columns, then slices."""
    columns, rows, slices = box
    return np.array([[1 + y + NY * (x + NX * z)] for z in slices for x in columns for y in rows], float)


def cube() -> NDArray[np.float64]:
    """CT numbers in the order y, x, z."""
    hu = np.full((NY, NX, NZ), -1000.0)
    for (columns, rows, slices), value in ((BODY, WATER_HU), (CORNER, BONE_HU)):
        hu[np.ix_(rows, columns, slices)] = value
    return hu


def entry(name: str, penalty: float | None = None, *parameters: float) -> dict[str, Any]:
    """An objective, or a constraint if it has no penalty, as matRad stores it from version 2.10."""
    package = "DoseConstraints" if penalty is None else "DoseObjectives"
    about = {"className": f"{package}.matRad_{name}", "parameters": list(parameters), "robustness": "none"}
    return about if penalty is None else {**about, "penalty": penalty}


def row(name: str, kind: str, box: Box | None, priority: float, objectives: Any = ()) -> list[Any]:
    """A row of `cst`."""
    voxels = np.zeros((0, 1)) if box is None else linear(box)
    return [0.0, name, kind, [voxels], {"Priority": priority, "alphaX": 0.1}, objectives or np.zeros((0, 0))]


def patient(**changes: Any) -> dict[str, Any]:
    """`ct` and `cst`; changes replace fields of `ct`, and `cst`, or add variables."""
    ct: dict[str, Any] = {
        "cubeHU": [cube()],
        "cubeDim": np.array([[NY, NX, NZ]], float),
        "resolution": dict(zip("xyz", SPACING_MM, strict=True)),
        "numOfCtScen": 1.0,
        "x": X[None],
        "y": Y[None],
        "z": Z[None],
    }
    cst = [
        row("Core", "OAR", CORE, 2, [entry("SquaredOverdosing", 300.0, 25.0)]),
        row("PTV 1", "TARGET", PTV, 1, [entry("SquaredDeviation", 1000.0, 50.0)]),
        row("BODY", "OAR", BODY, 3, [entry("SquaredOverdosing", 100.0, 30.0)]),
        row("Corner", "IGNORED", CORNER, 4),
    ]
    others: dict[str, Any] = {name: changes.pop(name) for name in ("cst", "pln", "stf") if name in changes}
    ct |= changes
    return {"ct": {name: value for name, value in ct.items() if value is not None}, "cst": cst, **others}


class StructArray(list[dict[str, Any]]):
    """Structs of the same fields."""


def write_v5(path: Path, variables: dict[str, Any]) -> Path:
    savemat(path, {name: _v5(value) for name, value in variables.items()})
    return path


def _v5(value: Any) -> Any:
    if isinstance(value, StructArray):
        names = list(value[0])
        return np.array([[tuple(_v5(one[n]) for n in names)] for one in value], dtype=[(n, object) for n in names])
    if isinstance(value, dict):
        return {name: _v5(inner) for name, inner in value.items()}
    if isinstance(value, list):
        rows = value if value and all(type(one) is list for one in value) else [value]
        cells = np.empty((len(rows), len(rows[0])), object)
        for place in np.ndindex(cells.shape):
            cells[place] = _v5(rows[place[0]][place[1]])
        return cells
    return value


def write_v73(path: Path, variables: dict[str, Any]) -> Path:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _v73(file, file.require_group("#refs#"), name, value)
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def _v73(parent: h5py.Group, refs: h5py.Group, name: str, value: Any) -> None:
    if isinstance(value, StructArray):
        group = parent.create_group(name)
        for field in value[0]:
            _references(group, refs, field, [[one[field]] for one in value])
    elif isinstance(value, dict):
        group = parent.create_group(name)
        for field, inner in value.items():
            _v73(group, refs, field, inner)
    elif isinstance(value, list):
        _references(parent, refs, name, value if value and all(type(one) is list for one in value) else [value])
    elif isinstance(value, str):
        data = parent.create_dataset(name, data=np.array([[ord(letter)] for letter in value], np.uint16))
        data.attrs["MATLAB_class"] = np.bytes_("char")
    else:
        array = np.atleast_2d(np.asarray(value, float))
        empty = array.size == 0
        data = parent.create_dataset(name, data=np.array(array.shape, np.uint64) if empty else array.T)
        data.attrs["MATLAB_class"] = np.bytes_("double")
        if empty:
            data.attrs["MATLAB_empty"] = np.uint8(1)


def _references(parent: h5py.Group, refs: h5py.Group, name: str, rows: list[list[Any]]) -> None:
    links = np.empty((len(rows[0]), len(rows)), h5py.ref_dtype)  # transposed
    for at, cells in enumerate(rows):
        for column, value in enumerate(cells):
            key = str(next(NUMBERS))
            _v73(refs, refs, key, value)
            links[column, at] = refs[key].ref
    data = parent.create_dataset(name, data=links, dtype=h5py.ref_dtype)
    data.attrs["MATLAB_class"] = np.bytes_("cell")
