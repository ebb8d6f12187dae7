"""What every dose operator can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class DoseOperator(Protocol):
    """A linear map from fluence maps (MU per fraction) to the dose of the whole course (Gy) at chosen voxels."""

    @property
    def fluence_shape(self) -> tuple[int, int, int]:
        """(control_point, leaf_pair, beamlet)."""

    @property
    def voxel_count(self) -> int:
        """Number of voxels that receive dose."""

    def forward(
        self, fluence_mu: Float[Tensor, "*batch control_point leaf_pair beamlet"]
    ) -> Float[Tensor, "*batch voxel"]:
        """Dose `D x`, Gy; records no gradient."""

    def adjoint(
        self, dose_weight: Float[Tensor, "*batch voxel"]
    ) -> Float[Tensor, "*batch control_point leaf_pair beamlet"]:
        """The transpose `D^T g`; records no gradient."""

    def to(self, device: torch.device | str) -> DoseOperator:
        """The same operator on another device."""


def check_last(tensor: Tensor, expected: tuple[int, ...], what: str) -> None:
    """Raise a clear error unless the trailing axes of a tensor are the expected ones."""
    if tuple(tensor.shape[-len(expected) :]) != expected:
        raise ValueError(f"{what} of shape {tuple(tensor.shape)}: expected the last axes to be {expected}")
