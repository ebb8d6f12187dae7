"""What steps tell of the curvature of a function: pairs of a step and the change of the gradient along it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass
class Pairs:
    """Steps and the changes of the gradient along them, the oldest first.

    Args:
        memory: number of pairs that are kept.
        steps: those kept.
        changes: of the gradient by what the steps are in.
        curvatures: product of each step and its change; kept, so that no search computes it again.
    """

    memory: int = 16
    steps: list[Float[Tensor, " *variable"]] = field(default_factory=list)
    changes: list[Float[Tensor, " *variable"]] = field(default_factory=list)
    curvatures: list[float] = field(default_factory=list)

    def observe(self, step: Float[Tensor, " *variable"], change: Float[Tensor, " *variable"]) -> None:
        """Take in a step and the change of the gradient; a pair without curvature is left out."""
        curvature = float(step.flatten() @ change.flatten())
        if curvature > 1e-4 * float(step.norm() * change.norm()):
            self.steps = [*self.steps, step][-self.memory :]
            self.changes = [*self.changes, change][-self.memory :]
            self.curvatures = [*self.curvatures, curvature][-self.memory :]

    def forget(self) -> None:
        """Drop all pairs."""
        self.steps, self.changes, self.curvatures = [], [], []


@dataclass
class PlanPairs:
    """Pairs of aperture optimization.

    Args:
        fluence: steps in fluence, MU, and the changes of the objective's gradient by it.
        leaves: steps of leaf tips and monitor units, and the changes of the gradient of the model.
    """

    fluence: Pairs = field(default_factory=Pairs)
    leaves: Pairs = field(default_factory=lambda: Pairs(memory=10))
