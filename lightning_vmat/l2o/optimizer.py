"""The protocol of optimizers: an explicit state, made by `init` and advanced by `update`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class State:
    """State of an optimizer.

    Args:
        x: fluence over `problem.scale_mu`, never negative.
        dose_gy: its dose.
        value: its objective.
        evaluations: dose evaluations (one forward and one adjoint each) spent to find x. The first forward, which every
            optimizer needs, is not counted.
    """

    x: FluenceMap
    dose_gy: Float[Tensor, " voxel"]
    value: Float[Tensor, ""]
    evaluations: int


AnyState = TypeVar("AnyState", bound=State)


@runtime_checkable
class Optimizer(Protocol[AnyState]):
    """Minimises a problem by inner steps. The object holds settings only, no state."""

    def init(self, problem: Problem, x: FluenceMap) -> AnyState:
        """Returns the state at a start; negative entries of x are set to 0."""
        ...

    def update(self, problem: Problem, state: AnyState) -> AnyState:
        """Returns the state after one inner step of one dose evaluation."""
        ...
