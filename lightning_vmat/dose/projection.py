"""The differentiable layer from fluence to dose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.dose._op import name_kind, project
from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.plan.shapes import FluenceMaps


class DoseProjection(nn.Module):
    """Layer from fluence maps to dose through a linear operator; gradients of any order use its exact adjoint.

    The operator is neither a parameter nor a buffer: it is not in the state dict, DDP does not broadcast it, and it
    keeps its precision when the module around it changes. It does follow the module to another device.

    Args:
        operator: the dose operator.

    >>> import torch
    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.dose.pencil_beam import PencilBeamOperator
    >>> from lightning_vmat.dose.projection import DoseProjection
    >>> case = vmat.phantom(0, size="tiny")
    >>> projection = DoseProjection(PencilBeamOperator.build(case, case.body_index[::50]))
    >>> fluence_mu = torch.rand(case.fluence_shape, requires_grad=True)
    >>> projection(fluence_mu).mean().backward()  # mean dose of the sampled voxels, Gy
    >>> fluence_mu.grad.shape == fluence_mu.shape
    True
    """

    def __init__(self, operator: DoseOperator) -> None:
        super().__init__()
        self._take(operator)

    def _take(self, operator: DoseOperator) -> None:
        self.operator = operator
        self.tensors, self.settings = operator.tensors(), operator.settings()
        self.kind = name_kind(operator)

    def forward(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose of the whole course, Gy, in at least single precision.

        If neither autograd nor a compiler needs the PyTorch operator, the dose operator is called directly: the first
        call of a custom PyTorch operator imports torch's compiler, which takes as long as importing the rest of torch.
        """
        if not _is_plain(fluence_mu):
            dose: Tensor = project(fluence_mu, self.tensors, self.kind, self.settings)
            return dose
        with torch.autocast(fluence_mu.device.type, enabled=False), torch.no_grad():
            return self.operator.forward(fluence_mu)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DoseProjection:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        here = self.tensors[0].device
        there = fn(torch.empty(0, device=here)).device
        if there != here:
            self._take(self.operator.to(there))
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        name_kind(self.operator)  # unpickled in a process where this class is not registered yet

    def extra_repr(self) -> str:
        """Returns the sizes that the module's `repr` shows."""
        return f"{self.operator.fluence_shape} -> {self.operator.voxel_count} voxels"


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary one that is neither traced nor differentiated."""
    differentiated = torch.is_grad_enabled() and tensor.requires_grad
    return type(tensor) is Tensor and not differentiated and not torch.compiler.is_compiling()
