"""MATLAB files of any version as dicts, lists, arrays and sparse matrices; nothing in them is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.sparse import csc_array, issparse


def read_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Some variables of a `.mat` file: structs as dicts, cells and struct arrays as lists.

    Raises:
        ValueError: a file that is missing or broken, or a variable that it lacks.
    """
    try:
        with open(path, "rb") as file:
            is_hdf5 = b"MATLAB 7.3" in file.read(128)
        if is_hdf5:
            with h5py.File(path, "r") as file5:
                found = {name: _from_hdf5(file5, file5[name]) for name in names if name in file5}
        else:
            loaded = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=list(names))
            found = {name: _from_scipy(loaded[name]) for name in names if name in loaded}
    except Exception as error:  # both readers raise a different kind for each way in which a file can be broken
        raise ValueError(f"MATLAB file {path}: {' '.join(str(error).split())}") from error
    for name in names:
        if name not in found:
            raise ValueError(f"MATLAB file {path}: no variable {name}")
    return found


def _from_scipy(value: Any) -> Any:
    if issparse(value):
        matrix: Any = value
        return csc_array(matrix)
    if hasattr(value, "_fieldnames"):
        return {name: _from_scipy(getattr(value, name)) for name in value._fieldnames}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [_from_scipy(item) for item in value.ravel()]
    return value


def _from_hdf5(file: h5py.File, item: Any) -> Any:
    if isinstance(item, h5py.Group):
        if "MATLAB_sparse" in item.attrs:
            return _sparse(item)
        return {name: _from_hdf5(file, child) for name, child in item.items()}
    if h5py.check_ref_dtype(item.dtype) is not None:
        values = [_from_hdf5(file, file[reference]) for reference in item[()].ravel()]
        return values
    value = np.asarray(item[()]).T.squeeze()
    if item.attrs.get("MATLAB_class") == b"char":
        return "".join(chr(code) for code in np.atleast_1d(value))
    return value


def _sparse(group: h5py.Group) -> csc_array:
    start = np.asarray(group["jc"][()], dtype=np.int64)
    empty = "data" not in group
    data = np.empty(0) if empty else np.asarray(group["data"][()])
    rows = np.empty(0, np.int64) if empty else np.asarray(group["ir"][()]).astype(np.int64)
    return csc_array((data, rows, start), shape=(int(group.attrs["MATLAB_sparse"]), len(start) - 1))
