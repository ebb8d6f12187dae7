"""The protocol of dose operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.shapes import FluenceMaps


@runtime_checkable
class DoseOperator(Protocol):
    """A linear map from fluence maps (MU per fraction) to the dose of the whole course (Gy) at chosen voxels.

    An operator consists of tensors and settings and can be rebuilt from these at no cost: this is how it passes through
    `torch.library.custom_op`, which takes tensors and strings but no objects.
    """

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """Shape of fluence maps (control_point, leaf_pair, beamlet)."""

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""

    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose `D x`, Gy; records no gradient."""

    def adjoint(self, dose_weight: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """Returns `D^T g`, the transpose applied to weights of the voxels' dose; records no gradient."""

    def to(self, device: torch.device | str) -> DoseOperator:
        """Returns the operator on a device."""

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the operator in a fixed order; none of them is sparse."""

    def settings(self) -> str:
        """Returns as text what `restore` needs besides the tensors."""

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> DoseOperator:
        """Rebuilds an operator from `tensors()` and `settings()`; reads no values of the tensors."""


def result_type(given: Tensor) -> torch.dtype:
    """Returns the type of an operator's result: single precision for half-precision input, else that of the input."""
    return torch.promote_types(given.dtype, torch.float32)


def check_last(tensor: Tensor, expected: tuple[int, ...], what: str) -> None:
    """Raises a ValueError unless the last axes of a tensor have the expected lengths."""
    if tuple(tensor.shape[-len(expected) :]) != expected:
        raise ValueError(f"{what} of shape {tuple(tensor.shape)}: expected the last axes to be {expected}")
