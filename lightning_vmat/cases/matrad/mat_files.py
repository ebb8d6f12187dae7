"""MATLAB files of any version as dicts, lists and arrays; nothing in them is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatlabOpaque

CLASS_FIELDS = ("_Class", "s2")  # of scipy's record of an object: from version 1.18, before


@dataclass(frozen=True)
class MatlabObject:
    """An object of a MATLAB class, whose contents only MATLAB can read."""

    class_name: str


def read_mat(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Some variables of a `.mat` file: structs as dicts, cells and struct arrays as lists, a table of cells as rows.

    Args:
        path: of the file.
        names: variables that it must have.
        optional: others to read where they are there.

    Raises:
        ValueError: a file that is missing or broken, or a variable that it lacks.
    """
    wanted = (*names, *optional)
    try:
        with open(path, "rb") as file:
            is_hdf5 = b"MATLAB 7.3" in file.read(128)
        if is_hdf5:
            with h5py.File(path, "r") as file5:
                found = {name: _from_hdf5(file5, file5[name]) for name in wanted if name in file5}
        else:
            loaded = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=list(wanted))
            found = {name: _from_scipy(loaded[name]) for name in wanted if name in loaded}
    except Exception as error:  # both readers raise a different kind for each way in which a file can be broken
        raise ValueError(f"MATLAB file {path}: {' '.join(str(error).split())}") from error
    for name in names:
        if name not in found:
            raise ValueError(f"MATLAB file {path}: no variable {name}")
    return found


def records(value: Any) -> list[Any]:
    """The elements of a cell or struct array, also of one element: 7.3 has a struct of lists for a list of structs."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and value and all(isinstance(field, list) for field in value.values()):
        return [dict(zip(value, fields, strict=True)) for fields in zip(*value.values(), strict=True)]
    return [] if _is_nothing(value) else [value]


def _is_nothing(value: Any) -> bool:
    return (
        value is None or (isinstance(value, dict | str) and not value) or (np.ndim(value) > 0 and np.size(value) == 0)
    )


def _from_scipy(value: Any) -> Any:
    if hasattr(value, "_fieldnames"):
        return {name: _from_scipy(getattr(value, name)) for name in value._fieldnames}
    if isinstance(value, MatlabOpaque):
        record = np.ravel(value)[0]
        name = next(record[field] for field in CLASS_FIELDS if field in record.dtype.names)
        return MatlabObject(name.decode() if isinstance(name, bytes) else str(name))
    if isinstance(value, np.ndarray) and value.dtype == object:
        cells = np.empty(value.shape, object)
        for place, cell in np.ndenumerate(value):
            cells[place] = _from_scipy(cell)
        return _cells(cells)
    return value


def _from_hdf5(file: h5py.File, item: Any) -> Any:
    if isinstance(item, h5py.Group):
        return {name: _from_hdf5(file, child) for name, child in item.items()}
    kind = item.attrs.get("MATLAB_class", b"")
    if "MATLAB_object_decode" in item.attrs:
        return MatlabObject(kind.decode())
    if item.attrs.get("MATLAB_empty", 0):  # the dataset holds the dimensions
        return "" if kind == b"char" else [] if kind == b"cell" else np.empty(0)
    if h5py.check_ref_dtype(item.dtype) is not None:
        cells = np.empty(item.shape, object)
        for place, reference in np.ndenumerate(item[()]):
            cells[place] = _from_hdf5(file, file[reference])
        return _cells(cells.T.squeeze())
    value = np.asarray(item[()]).T.squeeze()
    if kind == b"char":
        return "".join(chr(code) for code in np.atleast_1d(value))
    return value


def _cells(value: Any) -> list[Any]:
    """A list of a row or column of cells, a list of rows of a table."""
    if np.ndim(value) == 2:
        return [list(row) for row in value]
    return list(np.ravel(value))
