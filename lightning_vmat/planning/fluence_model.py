"""A quadratic model of the objective in fluence, in which it is smooth, unlike in leaf tips."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.shapes import FluenceMap

Maps = Float[Tensor, "*stack control_point leaf_pair beamlet"]


@dataclass
class FluenceModel:
    """Limited-memory BFGS approximation B of the objective's second derivative by fluence.

    The first guess is a multiple of `M^1/2 S^-1 M^1/2`, with the majoriser M and the filter S of
    `l2o.quasi_newton.sharpened`: smaller where control points differ, because their doses then cancel in part.

    Args:
        root: square root of the majoriser, objective^1/2 per MU; zero where the fluence must not change.
        memory: number of pairs (step, change of gradient) kept.
        sharpen: strength of the filter S.
        scale: factor on the first guess while there are no pairs.

    Reference: Nocedal and Wright 2006, eq. 7.24 (compact form) and eq. 7.20 (scale of the first guess).
    """

    root: Maps
    memory: int = 12
    sharpen: float = 4.0
    scale: float = 0.5
    steps: list[Maps] = field(default_factory=list)
    changes: list[Maps] = field(default_factory=list)

    def observe(self, step: Maps, change: Maps) -> None:
        """Adds a step in fluence and the change of the gradient; a pair without positive curvature is left out."""
        curvature = float((step * change).sum())
        if curvature > 1e-4 * float(step.norm() * change.norm()):
            self.steps = [*self.steps, step][-self.memory :]
            self.changes = [*self.changes, change][-self.memory :]
            # y P y / s y for the newest pair, the inverse of eq. 7.20 in the metric of the first guess P^-1
            self.scale = float((change * self._inverse_guess(change)).sum()) / curvature

    def matrix(self, damping: float = 1.0) -> BfgsMatrix:
        """Returns B with its first guess multiplied by `damping`."""
        if not self.steps:
            return BfgsMatrix(self, damping, None, None)
        steps, changes = torch.stack(self.steps), torch.stack(self.changes)
        guessed = self.scale * self._guess(steps)
        s, b, y = (maps.flatten(1) for maps in (steps, guessed, changes))
        # eq. 7.24: B = B0 - [B0 S, Y] middle^-1 [B0 S, Y]^T with middle = [[S^T B0 S, L], [L^T, -D]]; L and D are the
        # strictly lower triangle and the diagonal of S^T Y; double precision, as it is inverted
        products = (s @ y.T).double()
        lower = products.tril(-1)
        middle = torch.cat(
            (torch.cat(((s @ b.T).double(), lower), dim=1), torch.cat((lower.T, -products.diag().diag()), dim=1))
        )
        return BfgsMatrix(self, damping, torch.cat((b, y)), torch.linalg.inv(middle).to(s))

    def _guess(self, maps: Maps) -> Maps:
        scaled = self.root * maps
        mean = scaled.mean(dim=-3, keepdim=True)
        return self.root * (mean + (scaled - mean) / (1 + self.sharpen))

    def _inverse_guess(self, maps: Maps) -> Maps:
        inverse = torch.where(self.root > 0, 1 / self.root, 0.0)
        scaled = inverse * maps
        return inverse * (scaled + self.sharpen * (scaled - scaled.mean(dim=-3, keepdim=True)))


@dataclass(frozen=True)
class BfgsMatrix:
    """B in compact form.

    Args:
        model: model with the first guess.
        damping: factor on the first guess.
        basis: rows `[B0 S, Y]` of the low-rank part; None without pairs.
        middle: inverse of the middle matrix of the low-rank part; None without pairs.
    """

    model: FluenceModel
    damping: float
    basis: Float[Tensor, "two_pairs fluence"] | None
    middle: Float[Tensor, "two_pairs two_pairs"] | None

    def __matmul__(self, maps: FluenceMap) -> Tensor:
        product: Tensor = self.damping * self.model.scale * self.model._guess(maps)
        if self.basis is not None and self.middle is not None:
            product = product - (self.basis.T @ (self.middle @ (self.basis @ maps.flatten()))).view_as(maps)
        return product

    def diagonal(self) -> FluenceMap:
        """Returns the diagonal of the first guess for changes that differ between control points."""
        return self.damping * self.model.scale / (1 + self.model.sharpen) * self.model.root.square()
