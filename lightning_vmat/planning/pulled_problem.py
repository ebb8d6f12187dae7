"""A fluence problem with a pull toward a given fluence map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import ObjectiveFunction, Problem
from lightning_vmat.plan.shapes import FluenceMap, FluenceMaps


@dataclass(frozen=True)
class PulledObjective:
    """`objective(dose) + pull / 2 |x - target|^2`, on dose and fluence side by side.

    Args:
        objective: of the dose.
        voxels: how many of the values are dose; the others are fluence.
        target: where the fluence is pulled.
        pull: strength.
    """

    objective: ObjectiveFunction
    voxels: int
    target: Float[Tensor, " fluence"]
    pull: float

    def __call__(self, dose_gy: Float[Tensor, "*batch seen"]) -> Float[Tensor, "*batch"]:
        dose_gy, away = self._apart(dose_gy)
        return self.objective(dose_gy) + self.pull / 2 * away.square().sum(dim=-1)

    def gradient(self, dose_gy: Float[Tensor, "*batch seen"]) -> Float[Tensor, "*batch seen"]:
        """Derivative by dose and by fluence, detached."""
        dose_gy, away = self._apart(dose_gy)
        return torch.cat((self.objective.gradient(dose_gy), self.pull * away), dim=-1)

    def _apart(self, seen: Float[Tensor, "*batch seen"]) -> tuple[Tensor, Tensor]:
        """The dose, and how far the fluence is from its target."""
        return seen[..., : self.voxels], seen[..., self.voxels :] - self.target

    def to(self, device: torch.device | str) -> PulledObjective:
        return replace(self, objective=self.objective.to(device), target=self.target.to(device))


@dataclass(frozen=True)
class PulledProblem(Problem):
    """A problem that sees, beside the dose, the fluence itself, so that its objective can pull at both."""

    @classmethod
    def of(cls, problem: Problem, target: FluenceMap, pull: float) -> PulledProblem:
        """A problem with `pull / 2 |x - target|^2` added to its objective."""
        objective = PulledObjective(problem.objective, problem.voxel_count, target.flatten(), pull)
        return cls(**{**vars(problem), "objective": objective})

    def dose(self, x: FluenceMaps) -> Float[Tensor, "*batch seen"]:
        return torch.cat((super().dose(x), x.flatten(-3)), dim=-1)

    def back_project(self, dose_gradient: Float[Tensor, "*batch seen"]) -> FluenceMaps:
        dose_part, fluence_part = dose_gradient.split((self.voxel_count, self.open_field.numel()), dim=-1)
        own: Tensor = fluence_part.detach().unflatten(-1, self.open_field.shape)
        return super().back_project(dose_part) + own
