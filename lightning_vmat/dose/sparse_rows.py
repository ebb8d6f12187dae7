"""A sparse matrix in compressed rows (CSR), and its product with vectors on any device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from lightning_vmat.dose.backend import runs_triton


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix as plain tensors, because `deepcopy`, DDP and `torch.compile` do not support sparse ones.

    Args:
        row_start: index of each row's first element, and last the number of elements.
        column: column of each element; int32, which has a fast product on the CPU.
        value: value of each element; single precision on the CPU, single or half precision on a CUDA device.
        columns: number of columns.
    """

    row_start: Int[Tensor, " row_start"]
    column: Int[Tensor, " element"]
    value: Float[Tensor, " element"]
    columns: int

    @classmethod
    def from_scipy(cls, matrix: csr_array) -> SparseRows:
        """Converts a scipy matrix, with int32 indices and single-precision values."""
        matrix = matrix.sorted_indices()
        row_start, column = (torch.from_numpy(a.astype(np.int32)) for a in (matrix.indptr, matrix.indices))
        return cls(row_start, column, torch.from_numpy(matrix.data.astype(np.float32)), matrix.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.row_start) - 1, self.columns

    def product(self, vectors: Float[Tensor, "*batch column"]) -> Float[Tensor, "*batch row"]:
        """Returns the product of the matrix with each vector, summed in single precision."""
        columns = vectors.reshape(-1, self.columns).float().T
        if runs_triton(vectors):
            from lightning_vmat.dose import _triton

            product = _triton.row_products(self, columns.contiguous())
        else:
            product = self._sparse() @ columns
        return product.T.reshape(*vectors.shape[:-1], self.shape[0]).contiguous()

    def _sparse(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            parts = (self.row_start, self.column, self.value)
            return torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)

    def to(self, device: torch.device | str) -> SparseRows:
        """Returns the matrix on a device."""
        row_start, column, value = (part.to(device) for part in (self.row_start, self.column, self.value))
        return SparseRows(row_start, column, value, self.columns)
