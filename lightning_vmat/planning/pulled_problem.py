"""A fluence problem with a quadratic pull toward a given fluence map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import ObjectiveFunction, Problem
from lightning_vmat.plan.shapes import FluenceMap, FluenceMaps


@dataclass(frozen=True)
class PulledObjective:
    """`objective(dose) + pull / 2 |x - target|^2`, as a function of dose and fluence in one vector.

    Args:
        objective: objective of the dose.
        voxels: number of dose values in the vector; the rest is fluence.
        target: fluence toward which `x` is pulled.
        pull: strength of the pull.
    """

    objective: ObjectiveFunction
    voxels: int
    target: Float[Tensor, " fluence"]
    pull: float

    def __call__(self, dose_gy: Float[Tensor, "*batch seen"]) -> Float[Tensor, "*batch"]:
        dose_gy, away = self._apart(dose_gy)
        return self.objective(dose_gy) + self.pull / 2 * away.square().sum(dim=-1)

    def gradient(self, dose_gy: Float[Tensor, "*batch seen"]) -> Float[Tensor, "*batch seen"]:
        """Returns the derivative by dose and by fluence, detached."""
        dose_gy, away = self._apart(dose_gy)
        return torch.cat((self.objective.gradient(dose_gy), self.pull * away), dim=-1)

    def _apart(self, seen: Float[Tensor, "*batch seen"]) -> tuple[Tensor, Tensor]:
        """Splits the vector into the dose and the fluence's difference from its target."""
        return seen[..., : self.voxels], seen[..., self.voxels :] - self.target

    def to(self, device: torch.device | str) -> PulledObjective:
        """Returns the objective on a device."""
        return replace(self, objective=self.objective.to(device), target=self.target.to(device))


@dataclass(frozen=True)
class PulledProblem(Problem):
    """A problem whose `dose` includes the fluence itself, so that the objective can depend on both.

    The vector of dose and fluence is linear in fluence, so that every optimizer and line search works unchanged.
    """

    @classmethod
    def of(cls, problem: Problem, target: FluenceMap, pull: float) -> PulledProblem:
        """Returns a problem with `pull / 2 |x - target|^2` added to its objective."""
        objective = PulledObjective(problem.objective, problem.voxel_count, target.flatten(), pull)
        return cls(**{**vars(problem), "objective": objective})

    def dose(self, x: FluenceMaps) -> Float[Tensor, "*batch seen"]:
        """Returns dose, Gy, and fluence in one vector (one forward projection)."""
        return torch.cat((super().dose(x), x.flatten(-3)), dim=-1)

    def back_project(self, dose_gradient: Float[Tensor, "*batch seen"]) -> FluenceMaps:
        """Applies the adjoint of `dose` (one adjoint)."""
        dose_part, fluence_part = dose_gradient.split((self.voxel_count, self.open_field.numel()), dim=-1)
        own: Tensor = fluence_part.detach().unflatten(-1, self.open_field.shape)
        return super().back_project(dose_part) + own
