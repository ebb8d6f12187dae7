"""Dose operators as PyTorch operators, so that `torch.compile`, autograd and export know their shapes.

A PyTorch operator takes tensors and strings, no objects. A dose operator is therefore passed as its tensors and
settings, and rebuilt inside the call. The alternative, a table of operators indexed by a number, has three faults: the
number becomes a constant of compiled graphs (each patient compiles anew, and a graph cached on disk may be used with
another patient's operator), it does not keep its operator alive, and it is not valid after `deepcopy`, in another
process or on another device. Tensors are inputs of the graph, and autograd keeps alive those that it needs.
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
    """Registers the operator's class and returns the name by which `project` and `backproject` find it."""
    kind = type(operator)
    name = f"{kind.__module__}.{kind.__qualname__}"
    _KINDS[name] = kind
    return name


@torch.library.custom_op(
    "lightning_vmat::project", mutates_args=(), schema=f"(Tensor fluence_mu, {HANDED_OVER}) -> Tensor"
)
def project(fluence_mu: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    """Projects fluence [*batch, control_point, leaf_pair, beamlet], MU per fraction, to dose [*batch, voxel], Gy."""
    with torch.autocast(
        fluence_mu.device.type, enabled=False
    ):  # dose keeps single precision in a network that does not
        return _KINDS[kind].restore(tensors, settings).forward(fluence_mu)


@torch.library.custom_op(
    "lightning_vmat::backproject", mutates_args=(), schema=f"(Tensor dose_weight, {HANDED_OVER}) -> Tensor"
)
def backproject(dose_weight: Tensor, tensors: Sequence[Tensor], kind: str, settings: str) -> Tensor:
    """Applies the transpose of `project`."""
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
