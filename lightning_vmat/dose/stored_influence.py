"""The dose operator as a stored sparse matrix, for influence of other systems or computed in advance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from lightning_vmat.dose.influence_check import check_influence
from lightning_vmat.dose.operator import DoseOperator, check_last, result_type
from lightning_vmat.dose.sparse_rows import SparseRows
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.plan.shapes import FluenceMaps

FORMAT_VERSION = 1


@dataclass(frozen=True)
class StoredInfluence:
    """Dose influence in compressed rows, with its transpose in compressed rows too, so that both products are fast.

    Args:
        fluence_shape: (control_point, leaf_pair, beamlet).
        matrix: dose at each voxel per MU per fraction in each beamlet, Gy [voxel, flat beamlet].
        transpose: the transposed matrix [flat beamlet, voxel].
    """

    fluence_shape: tuple[int, int, int]
    matrix: SparseRows
    transpose: SparseRows

    @classmethod
    def from_scipy(
        cls, matrix: csr_array, fluence_shape: tuple[int, int, int], where: str = "influence"
    ) -> StoredInfluence:
        """Converts a scipy matrix [voxel, flat beamlet]; errors name it as `where`.

        Raises:
            ValueError: a shape that does not fit the fluence, or dose that is negative or not finite.
        """
        check_influence(matrix, where, columns=int(np.prod(fluence_shape)))
        return cls(fluence_shape, SparseRows.from_scipy(matrix), SparseRows.from_scipy(matrix.T.tocsr()))

    @classmethod
    def from_operator(
        cls, operator: DoseOperator, *, relative_threshold: float = 0.0, batch: int = 64
    ) -> StoredInfluence:
        """Computes the matrix of any operator, column by column.

        Args:
            operator: the operator to store.
            relative_threshold: elements below this fraction of their beamlet's largest are dropped.
            batch: columns computed at once.
        """
        count = int(np.prod(operator.fluence_shape))
        rows, columns, values = [], [], []
        for start in range(0, count, batch):
            width = min(batch, count - start)
            unit = torch.zeros(width, count)
            unit[torch.arange(width), start + torch.arange(width)] = 1.0
            dose = operator.forward(unit.view(width, *operator.fluence_shape))
            keep = dose.abs() > relative_threshold * dose.abs().amax(dim=1, keepdim=True)
            column, row = keep.nonzero(as_tuple=True)
            rows.append(row.int().numpy())
            columns.append((column + start).int().numpy())
            values.append(dose[keep].numpy())
        place = (np.concatenate(rows), np.concatenate(columns))
        matrix = coo_array((np.concatenate(values), place), shape=(operator.voxel_count, count))
        return cls.from_scipy(matrix.tocsr(), operator.fluence_shape)

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""
        return int(self.matrix.shape[0])

    @torch.no_grad()
    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose of the whole course, Gy; records no gradient."""
        check_last(fluence_mu, self.fluence_shape, "fluence")
        return self.matrix.product(fluence_mu.flatten(-3)).to(result_type(fluence_mu))

    @torch.no_grad()
    def adjoint(self, dose_weight: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """Returns the transpose applied to weights of the voxels' dose; records no gradient."""
        check_last(dose_weight, (self.voxel_count,), "dose")
        fluence = self.transpose.product(dose_weight).to(result_type(dose_weight))
        return fluence.view(*dose_weight.shape[:-1], *self.fluence_shape)

    def to(self, device: torch.device | str) -> StoredInfluence:
        """Returns the operator on a device."""
        return replace(self, matrix=self.matrix.to(device), transpose=self.transpose.to(device))

    def tensors(self) -> list[Tensor]:
        """Returns row starts, columns and values of the matrix, then of its transpose."""
        return [part for rows in (self.matrix, self.transpose) for part in (rows.row_start, rows.column, rows.value)]

    def settings(self) -> str:
        """Returns the shape of fluence maps as text."""
        return json.dumps(self.fluence_shape)

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> StoredInfluence:
        """Rebuilds an operator from `tensors()` and `settings()`."""
        control_points, leaf_pairs, beamlets = json.loads(settings)
        rows, row_columns, row_values, columns, column_rows, column_values = tensors
        matrix = SparseRows(rows, row_columns, row_values, control_points * leaf_pairs * beamlets)
        transpose = SparseRows(columns, column_rows, column_values, len(rows) - 1)
        return cls((control_points, leaf_pairs, beamlets), matrix, transpose)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file atomically: float16 values over the largest one, and int32 indices."""
        values = self.matrix.value
        scale = float(values.abs().max()) if len(values) else 1.0
        tensors = {
            "row_start": self.matrix.row_start,
            "column": self.matrix.column,
            "value": (values / scale).half(),
        }
        about = {"version": FORMAT_VERSION, "fluence_shape": self.fluence_shape, "scale": scale}
        with atomic_file(Path(path)) as draft:
            save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, draft, {"dose": json.dumps(about)})

    @classmethod
    def load(
        cls, path: str | Path, *, rows: Int[Tensor, " voxel"] | None = None, row_count: int | None = None
    ) -> StoredInfluence:
        """Reads a file that `save` wrote.

        Args:
            path: the file.
            rows: voxels whose rows to keep, in this order; all if None.
            row_count: number of rows expected in the file; any if None.

        Raises:
            ValueError: a missing or broken file, or one of another version or number of rows.
        """
        try:
            with safe_open(path, framework="np") as file:
                about = json.loads((file.metadata() or {})["dose"])
                if about["version"] != FORMAT_VERSION:
                    raise ValueError(f"version {about['version']}, expected {FORMAT_VERSION}")
                row_start, column, value = (file.get_tensor(name) for name in ("row_start", "column", "value"))
            control_points, leaf_pairs, beamlets = (int(n) for n in about["fluence_shape"])
            shape = (len(row_start) - 1, control_points * leaf_pairs * beamlets)
            matrix = csr_array((value.astype(np.float32) * about["scale"], column, row_start), shape=shape)
            matrix.check_format()
            if row_count is not None and matrix.shape[0] != row_count:
                raise ValueError(f"{matrix.shape[0]} rows, expected {row_count}")
            matrix = matrix if rows is None else matrix[rows.cpu().numpy()]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"influence file {path}: {' '.join(str(error).split())}") from error
        return cls.from_scipy(matrix, (control_points, leaf_pairs, beamlets), f"influence file {path}")
