"""Checks that every influence matrix must pass, whatever its source."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_array, csr_array

MOST_ENTRIES = 2**31 - 1024  # indices are int32, and kernels look up to 512 beyond a row


def check_influence(
    matrix: csr_array | csc_array, where: str, *, voxels: int | None = None, columns: int | None = None
) -> None:
    """Checks that a matrix can be an influence matrix.

    Args:
        matrix: dose per unit of fluence.
        where: subject of the error, for example a file.
        voxels: number of rows expected; any if None.
        columns: number of columns expected; any if None.

    Raises:
        ValueError: NaN, infinite or negative entries, another shape than expected, or too many entries.
    """
    for count, expected, axis in zip(matrix.shape, (voxels, columns), ("rows", "columns"), strict=True):
        if expected is not None and count != expected:
            raise ValueError(f"{where}: {count} {axis}, expected {expected}")
    if matrix.nnz > MOST_ENTRIES:
        raise ValueError(f"{where}: {matrix.nnz} entries, expected at most {MOST_ENTRIES}; split the beams")
    lowest = float(matrix.data.min(initial=0.0))
    if not np.isfinite(lowest) or not np.isfinite(matrix.data.max(initial=0.0)):
        raise ValueError(f"{where}: holds NaN or infinity, expected finite dose")
    if lowest < 0:
        raise ValueError(f"{where}: holds negative dose ({lowest:g}), expected none")
