"""The differentiable layer from fluence to dose that everything above uses."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.dose.operator import DoseOperator


class DoseProjection(nn.Module):
    """Fluence maps to dose through a linear operator; gradients of any order use its exact adjoint.

    Args:
        operator: the dose operator; not a parameter, not in the state dict.
    """

    def __init__(self, operator: DoseOperator) -> None:
        super().__init__()
        self.operator = operator

    def forward(
        self, fluence_mu: Float[Tensor, "*batch control_point leaf_pair beamlet"]
    ) -> Float[Tensor, "*batch voxel"]:
        """Dose of the whole course, Gy."""
        dose: Tensor = _Project.apply(fluence_mu, self.operator)  # type: ignore[no-untyped-call]
        return dose

    def extra_repr(self) -> str:
        return f"{self.operator.fluence_shape} -> {self.operator.voxel_count} voxels"


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fluence_mu: Tensor, operator: DoseOperator) -> Tensor:
        ctx.operator = operator
        return operator.forward(fluence_mu)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _Backproject.apply(grad_outputs[0], ctx.operator), None  # type: ignore[no-untyped-call]


class _Backproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dose_weight: Tensor, operator: DoseOperator) -> Tensor:
        ctx.operator = operator
        return operator.adjoint(dose_weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _Project.apply(grad_outputs[0], ctx.operator), None  # type: ignore[no-untyped-call]
