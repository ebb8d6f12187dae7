"""A limited-memory quasi-Newton model of the objective's curvature by fluence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap

SHARPENING = 4.0
"""Chosen from 0, 2, 4, 8, 16 on the training phantoms 0000 to 0003 of the demo: 2 is best at 5 evaluations, 2 and 4 at
10, 4 at 20. No validation or test case was used."""

Pair = tuple[FluenceMap, FluenceMap]


def sharpened(
    maps: FluenceMap,
) -> FluenceMap:
    """Returns maps with enlarged differences between control points.

    If all control points change in the same way, their doses add up and the majoriser is about right. If they differ,
    the doses cancel and the majoriser overestimates the curvature. The filter acts like the ramp filter of tomography.
    """
    return maps + SHARPENING * (maps - maps.mean(dim=0))


@dataclass(frozen=True)
class QuasiNewton:
    """Limited-memory BFGS model of the Hessian.

    Args:
        majoriser: diagonal that bounds the Hessian.
        reach: factor on `precondition` as the first guess of the inverse Hessian, while there are no pairs.
        memory: number of pairs kept.
        sharpen: symmetric positive definite filter inside the preconditioner.
        pairs: (step, change of gradient), the oldest first.
        last: the last point and its gradient.

    Reference: Nocedal and Wright 2006, algorithm 7.4.
    """

    majoriser: FluenceMap
    reach: float
    memory: int
    sharpen: Callable[[Tensor], Tensor] = sharpened
    pairs: tuple[Pair, ...] = ()
    last: Pair | None = None

    def observe(
        self,
        x: FluenceMap,
        gradient: FluenceMap,
    ) -> QuasiNewton:
        """Returns the model after a new gradient; a pair without positive curvature is left out."""
        pairs = self.pairs
        if self.last is not None:
            step, change = x - self.last[0], gradient - self.last[1]
            if float((step * change).sum()) > 1e-6 * float(step.norm() * change.norm()):
                pairs = (*pairs, (step, change))[-self.memory :]
        return replace(self, pairs=pairs, last=(x, gradient))

    def at(
        self,
        problem: Problem,
        dose_gy: Float[Tensor, " voxel"],
        free: Bool[Tensor, "control_point leaf_pair beamlet"],
    ) -> QuasiNewton:
        """The model for a step from a dose with these beamlets free to change; this one goes by pairs alone."""
        return self

    def forget(self) -> QuasiNewton:
        """Returns the model without its pairs, or, if it has none, with a shorter first guess."""
        return replace(self, pairs=(), reach=self.reach if self.pairs else max(self.reach / 4, 1e-3))

    def gradient_step(self, gradient: FluenceMap) -> FluenceMap:
        """Returns the steepest-descent step in the metric of `precondition`."""
        return -self.reach * self.precondition(gradient)

    def precondition(self, gradient: FluenceMap) -> FluenceMap:
        """Applies the inverse majoriser with the filter inside; symmetric and positive definite."""
        root = self.majoriser.rsqrt()  # M^-1/2 S M^-1/2 is symmetric, which S M^-1 would not be
        return root * self.sharpen(gradient * root)

    def step(
        self,
        gradient: FluenceMap,
        free: Bool[Tensor, "control_point leaf_pair beamlet"],
    ) -> FluenceMap:
        """Returns the quasi-Newton step in the subspace of the free beamlets (two-loop recursion)."""
        shift = torch.where(free, gradient, 0)
        used: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for step, change in reversed(self.pairs):
            # the pairs are restricted to the subspace, where their curvature may no longer be positive
            step, change = torch.where(free, step, 0), torch.where(free, change, 0)
            curvature = (step * change).sum()
            if float(curvature) > 1e-8 * float(step.norm() * change.norm()):
                weight = (step * shift).sum() / curvature
                shift = shift - weight * change
                used.append((step, change, curvature, weight))
        scale = self.reach
        if (
            used
        ):  # scale of the first guess from the newest pair, s y / (y P y): eq. 7.20 in the preconditioner's metric
            _, change, curvature, _ = used[0]
            scale = float(curvature / (change * self.precondition(change).detach()).sum())
        shift = scale * torch.where(free, self.precondition(shift), 0)
        for step, change, curvature, weight in reversed(used):
            shift = shift + step * (weight - (change * shift).sum() / curvature)
        return -torch.where(free, shift, 0)
