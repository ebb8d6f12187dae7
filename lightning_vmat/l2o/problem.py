"""A fluence problem: minimise a dose objective over non-negative fluence, in which dose is linear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.plan.shapes import FluenceMap, FluenceMaps


@runtime_checkable
class ObjectiveFunction(Protocol):
    """A function of the dose, with its gradient."""

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch"]: ...

    def gradient(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch voxel"]:
        """Returns the derivative by dose, detached."""

    def to(self, device: torch.device | str) -> ObjectiveFunction:
        """Returns the function on a device."""


@dataclass(frozen=True)
class Problem:
    """Minimise `objective(D scale_mu x)` over `x >= 0`.

    Args:
        name: case and settings, for messages and tables.
        projection: dose operator D of the sampled voxels, in Gy per MU.
        objective: dose objective on the same voxels.
        scale_mu: monitor units of x = 1.
        open_field: x of the uniform conformal open field, the default start.
        centres_mm: centres of the sampled voxels; None where they are not known.
        in_target: whether each of them lies in a target; None where that is not known.
    """

    name: str
    projection: DoseProjection
    objective: ObjectiveFunction
    scale_mu: float
    open_field: FluenceMap
    centres_mm: Float[Tensor, "voxel 3"] | None = None
    in_target: Bool[Tensor, " voxel"] | None = None

    @property
    def voxel_count(self) -> int:
        """Number of voxels of the sample."""
        return self.projection.operator.voxel_count

    def dose(self, x: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose in Gy (one forward projection); linear and differentiable."""
        dose_gy: Tensor = self.projection(x * self.scale_mu)
        return dose_gy

    def dose_of_mu(self, fluence_mu: FluenceMaps) -> Float[Tensor, "*batch voxel"]:
        """Returns the dose in Gy of a fluence in MU (one forward projection)."""
        return self.dose(fluence_mu / self.scale_mu)

    def back_project(self, dose_gradient: Float[Tensor, "*batch voxel"]) -> FluenceMaps:
        """Returns the adjoint of `dose` applied to a gradient (one adjoint); not differentiable."""
        with torch.no_grad():
            fluence: Tensor = self.projection.operator.adjoint(dose_gradient.detach()) * self.scale_mu
        return fluence

    def value(self, x: FluenceMaps) -> Float[Tensor, "*batch"]:
        """Returns the objective (one forward projection)."""
        return self.objective(self.dose(x))

    def gradient(self, dose_gy: Float[Tensor, " voxel"]) -> FluenceMap:
        """Returns the gradient by x at a dose already known (one adjoint); not differentiable."""
        return self.back_project(self.objective.gradient(dose_gy.detach()))

    def evaluate(self, x: FluenceMap) -> tuple[Float[Tensor, ""], FluenceMap, Float[Tensor, " voxel"]]:
        """Returns objective, gradient and dose by one dose evaluation, that is one forward and one adjoint."""
        dose_gy = self.dose(x)
        return self.objective(dose_gy), self.gradient(dose_gy), dose_gy

    @torch.no_grad()
    def voxel_curvature(self, dose_gy: Float[Tensor, " voxel"]) -> Float[Tensor, " voxel"]:
        """Second derivative of the objective by each voxel's dose: a difference of gradients, no projection."""
        dose_gy = dose_gy.detach()
        apart = 0.02 * dose_gy.max() + torch.finfo(dose_gy.dtype).eps
        ahead, behind = self.objective.gradient(torch.stack((dose_gy + apart, dose_gy - apart)))
        curvature: Tensor = ((ahead - behind) / (2 * apart)).clamp(min=0)
        return curvature

    def majoriser(self, dose_gy: Float[Tensor, " voxel"]) -> FluenceMap:
        """Returns the diagonal `D^T W D 1` that bounds the Hessian by x (one dose evaluation); positive everywhere.

        W is the curvature of each voxel at the given dose: a difference of gradients, which needs no projection and,
        unlike a bound for all doses, leaves out objectives that are met. Beamlets that hardly contribute to an active
        voxel are raised to a small share of the mean, so that dividing by the majoriser is safe.

        Reference: De Pierro 1995, separable surrogate functions.
        """
        with torch.no_grad():
            weights = self.voxel_curvature(dose_gy)
            # with D and W non-negative, D^T W D <= diag(D^T W D 1)
            diagonal = self.back_project(weights * self.dose(torch.ones_like(self.open_field)))
        mean = diagonal.mean()
        return torch.maximum(diagonal, torch.where(mean > 0, 0.02 * mean, torch.ones_like(mean)))

    def to(self, device: torch.device | str) -> Problem:
        """Returns the problem on a device."""
        return replace(
            self,
            projection=DoseProjection(self.projection.operator.to(device)),
            objective=self.objective.to(device),
            open_field=self.open_field.to(device),
            centres_mm=None if self.centres_mm is None else self.centres_mm.to(device),
            in_target=None if self.in_target is None else self.in_target.to(device),
        )
