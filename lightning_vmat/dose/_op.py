"""Dose operators as PyTorch operators, so that `torch.compile`, autograd and export see through to their shapes.

A PyTorch operator takes tensors and text, no objects. A dose operator is therefore handed over as its tensors and
settings, and made again inside the call. A table of operators with a number each was the other choice: a number is
burnt into compiled graphs (each patient compiles anew, and a graph kept on disk may meet another patient's operator),
outlives or loses its operator, and means something else after `deepcopy`, in another process or on another device.
Tensors are none of that: they are inputs, and autograd keeps those alive that it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator, result_type

HANDED_OVER = "Tensor[] tensors, str kind, str settings"  # a dose operator
_KINDS: dict[str, type[DoseOperator]] = {}


def name_kind(operator: DoseOperator) -> str:
    """A name under which `project` and `backproject` find the operator's class."""
    kind = type(operator)
    name = f"{kind.__module__}.{kind.__qualname__}"
    _KINDS[name] = kind
    return name


@torch.library.custom_op(
    "lightning_vmat::project", mutates_args=(), schema=f"(Tensor fluence_mu, {HANDED_OVER}) -> Tensor"
)
def project(fluence_mu: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    """Fluence [*batch, control_point, leaf_pair, beamlet], MU per fraction, to dose [*batch, voxel], Gy."""
    with torch.autocast(
        fluence_mu.device.type, enabled=False
    ):  # dose keeps single precision in a network that does not
        return _KINDS[kind].restore(tensors, settings).forward(fluence_mu)


@torch.library.custom_op(
    "lightning_vmat::backproject", mutates_args=(), schema=f"(Tensor dose_weight, {HANDED_OVER}) -> Tensor"
)
def backproject(dose_weight: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    """The transpose of `project`."""
    with torch.autocast(dose_weight.device.type, enabled=False):
        return _KINDS[kind].restore(tensors, settings).adjoint(dose_weight)


@project.register_fake
def _(fluence_mu: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    operator = _KINDS[kind].restore(tensors, settings)
    return fluence_mu.new_empty(*fluence_mu.shape[:-3], operator.voxel_count, dtype=result_type(fluence_mu))


@backproject.register_fake
def _(dose_weight: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    operator = _KINDS[kind].restore(tensors, settings)
    return dose_weight.new_empty(*dose_weight.shape[:-1], *operator.fluence_shape, dtype=result_type(dose_weight))


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, Sequence[Tensor], str, str], output: Tensor) -> None:
    given, tensors, ctx.kind, ctx.settings = inputs
    ctx.dtype = given.dtype
    ctx.save_for_backward(*tensors)


def _through(operation: Any) -> Any:
    """The gradient of one operator is the other, of the same tensors."""

    def gradient(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, list[None], None, None]:
        tensors = list(ctx.saved_tensors)
        back = operation(output_gradient, tensors, ctx.kind, ctx.settings).to(ctx.dtype)
        return back, [None] * len(tensors), None, None

    return gradient


project.register_autograd(_through(backproject), setup_context=_keep_inputs)
backproject.register_autograd(_through(project), setup_context=_keep_inputs)
