"""What every dose operator can do."""

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

    An operator is tensors and settings, and can be made from these again at no cost: this is how it passes through
    `torch.library.custom_op`, which takes tensors and strings but no objects.
    """

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """(control_point, leaf_pair, beamlet)."""

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""

    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Dose `D x`, Gy; records no gradient."""

    def adjoint(self, dose_weight: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """The transpose `D^T g`; records no gradient."""

    def to(self, device: torch.device | str) -> DoseOperator:
        """The same operator on another device."""

    def tensors(self) -> list[Tensor]:
        """All of the operator's tensors, in a fixed order; none of them sparse."""

    def settings(self) -> str:
        """All else that makes the operator, as text; shapes excepted, which the tensors tell."""

    @classmethod
    def restore(cls, tensors: Sequence[Tensor], settings: str) -> DoseOperator:
        """The operator of which `tensors` and `settings` are; reads no values."""


def result_type(given: Tensor) -> torch.dtype:
    """Type of what an operator returns: half precision comes in, single precision goes out."""
    return torch.promote_types(given.dtype, torch.float32)


def check_last(tensor: Tensor, expected: tuple[int, ...], what: str) -> None:
    """Raise a clear error unless the trailing axes of a tensor are the expected ones."""
    if tuple(tensor.shape[-len(expected) :]) != expected:
        raise ValueError(f"{what} of shape {tuple(tensor.shape)}: expected the last axes to be {expected}")
