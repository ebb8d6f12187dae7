"""A quadratic model of the objective in fluence, where it has no kinks however the leaves move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.pairs import Pairs

Maps = Float[Tensor, "*stack control_point leaf_pair beamlet"]


@runtime_checkable
class FirstGuess(Protocol):
    """What the Hessian by fluence is taken for before there are pairs."""

    @property
    def scale(self) -> float:
        """Factor on it as long as there is no pair."""

    def multiply(self, maps: Maps) -> Maps:
        """The guess times maps."""

    def scale_after(self, step: Maps, change: Maps) -> float:
        """Factor on it after a step in fluence and the change of the gradient."""

    def diagonal(self) -> FluenceMap:
        """Roughly its diagonal, for maps whose control points differ."""


@dataclass(frozen=True)
class MajoriserGuess:
    """The majoriser M, less where control points differ: `M^1/2 S^-1 M^1/2`, with S of `l2o.quasi_newton.sharpened`.

    Doses of differing control points cancel in part, so there M is too cautious.

    Args:
        root: square root of the majoriser, objective^1/2 per MU; zero where the fluence is not to be changed.
        sharpen: strength of the filter S.
        scale: factor as long as there is no pair.

    Reference: Nocedal and Wright 2006, eq. 7.20 (scale of the first guess).
    """

    root: Maps
    sharpen: float = 4.0
    scale: float = 0.5

    def multiply(self, maps: Maps) -> Maps:
        """Returns the guess times maps."""
        scaled = self.root * maps
        mean = scaled.mean(dim=-3, keepdim=True)
        return self.root * (mean + (scaled - mean) / (1 + self.sharpen))

    def scale_after(self, step: Maps, change: Maps) -> float:
        """Returns the factor after a pair: the curvature that it shows over that of the guess."""
        # y P y / s y for the newest pair, the inverse of eq. 7.20 in the metric of the first guess P^-1
        return float((change * self._inverse(change)).sum()) / float((step * change).sum())

    def diagonal(self) -> FluenceMap:
        """Returns the diagonal for maps that differ between control points."""
        return self.root.square() / (1 + self.sharpen)

    def _inverse(self, maps: Maps) -> Maps:
        inverse = torch.where(self.root > 0, 1 / self.root, 0.0)
        scaled = inverse * maps
        return inverse * (scaled + self.sharpen * (scaled - scaled.mean(dim=-3, keepdim=True)))


@dataclass(frozen=True)
class SurrogateGuess:
    """The surrogate of the Hessian at the current dose, `C^T W_c C`, and a small share of the majoriser.

    Args:
        surrogate: of the problem, for the maps of the model.
        weights: W_c at the current dose, per MU^2.
        majoriser: M, objective per MU^2.
        ridge: share of M.
        scale: its scale is right as it is.
    """

    surrogate: CurvatureSurrogate
    weights: Float[Tensor, " chosen"]
    majoriser: FluenceMap
    ridge: float = 0.005
    scale: float = 1.0

    def multiply(self, maps: Maps) -> Maps:
        """Returns the guess times maps."""
        product: Tensor = self.surrogate.multiply(maps, self.weights) + self.ridge * self.majoriser * maps
        return product

    def scale_after(self, step: Maps, change: Maps) -> float:
        """Returns 1: the surrogate knows its scale."""
        return 1.0

    def diagonal(self) -> FluenceMap:
        """Returns a tenth of the majoriser."""
        return self.majoriser / 10  # what is far from its true one only costs inner iterations


@dataclass
class FluenceModel:
    """The limited-memory BFGS matrix B of the objective's second derivative by fluence.

    Args:
        guess: of B without pairs; may be another one for each dose.
        pairs: what steps told of B.

    Reference: Nocedal and Wright 2006, eq. 7.24 (compact form).
    """

    guess: FirstGuess
    pairs: Pairs = field(default_factory=Pairs)

    def matrix(self, damping: float = 1.0) -> BfgsMatrix:
        """B, with its first guess counted `damping` times."""
        if not self.pairs.steps:
            return BfgsMatrix(self.guess, damping * self.guess.scale, None, None)
        scale = self.guess.scale_after(self.pairs.steps[-1], self.pairs.changes[-1])
        steps, changes = torch.stack(self.pairs.steps), torch.stack(self.pairs.changes)
        guessed = scale * self.guess.multiply(steps)
        s, b, y = (maps.flatten(1) for maps in (steps, guessed, changes))
        # eq. 7.24: B = B0 - [B0 S, Y] middle^-1 [B0 S, Y]^T with middle = [[S^T B0 S, L], [L^T, -D]]; L and D are the
        # strictly lower triangle and the diagonal of S^T Y; double precision, as it is inverted
        products = (s @ y.T).double()
        lower = products.tril(-1)
        middle = torch.cat(
            (torch.cat(((s @ b.T).double(), lower), dim=1), torch.cat((lower.T, -products.diag().diag()), dim=1))
        )
        return BfgsMatrix(self.guess, damping * scale, torch.cat((b, y)), torch.linalg.inv(middle).to(s))


@dataclass(frozen=True)
class BfgsMatrix:
    """B in compact form.

    Args:
        guess: without pairs.
        scale: factor on it.
        basis: rows that span what the pairs add to it.
        middle: between two projections onto the basis.
    """

    guess: FirstGuess
    scale: float
    basis: Float[Tensor, "two_pairs fluence"] | None
    middle: Float[Tensor, "two_pairs two_pairs"] | None

    def __matmul__(self, maps: FluenceMap) -> Tensor:
        product: Tensor = self.scale * self.guess.multiply(maps)
        if self.basis is not None and self.middle is not None:
            product = product - (self.basis.T @ (self.middle @ (self.basis @ maps.flatten()))).view_as(maps)
        return product

    def diagonal(self) -> FluenceMap:
        """That of the first guess, for differing control points."""
        return self.scale * self.guess.diagonal()
