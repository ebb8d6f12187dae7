"""The protocol that every optimizer follows: an explicit state, made by `init` and moved by `update`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class State:
    """Where an optimizer stands.

    Args:
        x: fluence over `problem.scale_mu`, never negative.
        dose_gy: its dose.
        value: its objective.
        evaluations: dose evaluations (one forward and one adjoint each) spent to find x. The very first forward,
            which every optimizer needs, is not counted.
    """

    x: FluenceMap
    dose_gy: Float[Tensor, " voxel"]
    value: Float[Tensor, ""]
    evaluations: int


AnyState = TypeVar("AnyState", bound=State)


@runtime_checkable
class Optimizer(Protocol[AnyState]):
    """Minimises a problem by inner steps. An object of this kind holds settings only, no state."""

    def init(self, problem: Problem, x: FluenceMap) -> AnyState:
        """State at a start; negative entries of x are set to 0."""
        ...

    def update(self, problem: Problem, state: AnyState) -> AnyState:
        """One inner step, of one dose evaluation."""
        ...
