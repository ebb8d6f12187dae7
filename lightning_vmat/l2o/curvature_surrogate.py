"""The current curvature of a problem, as a few voxels and coarse beamlets tell it.

The Hessian of the objective by fluence is `D^T W(d) D`: W says which voxels are active at the dose d. Here a few
hundred voxels stand for their neighbours, and cells of beamlets for the beamlets in them: `C^T W_c C`, with W_c the sum
of W over each voxel's neighbourhood. W is refreshed at every step and costs no projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_vmat.dose.pooled_rows import BeamletCells, Cell, Cells, pooled_rows
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.shapes import FluenceMap, FluenceMaps

LLOYD_ROUNDS, LLOYD_SHARE = 3, 20  # rounds, and voxels for each chosen one on which they are made
TARGET_SHARE = 0.5  # of the chosen voxels lies in targets, where most of the curvature is


@dataclass(frozen=True)
class CurvatureSurrogate:
    """`C^T W_c C` over cells of beamlets; made once for a problem.

    Args:
        rows: mean dose to each chosen voxel of a unit of fluence in one beamlet of each cell, Gy.
        cells: these cells: those that are not behind the jaws.
        neighbourhood: which chosen voxel each voxel of the problem belongs to.
    """

    rows: Float[Tensor, "chosen cell"]
    cells: BeamletCells
    neighbourhood: Int[Tensor, " voxel"]

    @classmethod
    def of(
        cls,
        problem: Problem,
        voxels: int = 800,
        cell: Cell = (2, 1, 1),
        *,
        part: tuple[slice, slice] = (slice(None), slice(None)),
        seed: int = 0,
    ) -> CurvatureSurrogate:
        """The surrogate of a problem.

        Args:
            problem: tells where its voxels are.
            voxels: number of chosen voxels; all if the problem has no more.
            cell: control points, leaf pairs and beamlets of a cell.
            part: leaf pairs and beamlets of the maps that it is for; all if not given. Only with cells of one beamlet.
            seed: of the choice.

        Raises:
            ValueError: a problem without the places of its voxels.
        """
        if problem.centres_mm is None or problem.in_target is None:
            raise ValueError(f"{problem.name}: no places of the voxels, expected them for the curvature's surrogate")
        chosen, neighbourhood = choose_voxels(problem.centres_mm, problem.in_target, voxels, seed)
        rows = pooled_rows(problem.projection.operator, chosen, cell)[:, :, part[0], part[1]] * problem.scale_mu
        control_points, leaf_pairs, beamlets = problem.open_field[:, part[0], part[1]].shape
        return cls(*BeamletCells.seen_by(rows, (control_points, leaf_pairs, beamlets), cell), neighbourhood)

    def weights(self, voxel_curvature: Float[Tensor, " voxel"]) -> Float[Tensor, " chosen"]:
        """W_c: the curvature of each neighbourhood."""
        return voxel_curvature.new_zeros(len(self.rows)).index_add(0, self.neighbourhood, voxel_curvature)

    def solve(
        self,
        gradient: FluenceMap,
        free: Bool[Tensor, "control_point leaf_pair beamlet"],
        weights: Float[Tensor, " chosen"],
        majoriser: FluenceMap,
        *,
        ridge: float,
        fine_ridge: float,
        iterations: int,
    ) -> FluenceMap:
        """Approximately `(C^T W_c C + ridge M)^-1 gradient` within the free beamlets; symmetric, positive definite.

        Conjugate gradients solve for the part of the gradient that is even within cells. What is uneven there gets the
        inverse majoriser M, since voxels' doses hardly see it.

        Args:
            gradient: right-hand side.
            free: beamlets that may change.
            weights: W_c.
            majoriser: diagonal that bounds the Hessian.
            ridge: share of M in the coarse equations.
            fine_ridge: share of M for what is uneven within cells.
            iterations: of conjugate gradients.
        """
        held = torch.where(free, gradient, 0)
        counts, bound = self.cells.sums(free.to(gradient)), self.cells.sums(torch.where(free, majoriser, 0))
        bound = bound + 1e-6 * bound.mean()  # cells without a free beamlet
        right = self.cells.sums(held)

        def apply(z: Cells) -> Cells:
            return counts * self._product(counts * z, weights) + ridge * bound * z

        coarse = conjugate_gradients(apply, right, (ridge + 0.1) * bound, iterations)
        uneven = held / majoriser - self.cells.spread(right / bound)
        return torch.where(free, self.cells.spread(coarse) + uneven / fine_ridge, 0)

    def multiply(self, maps: FluenceMaps, weights: Float[Tensor, " chosen"]) -> FluenceMaps:
        """`C^T W_c C` times one map or several."""
        return self.cells.spread(self._product(self.cells.sums(maps), weights))

    def _product(self, cells: Cells, weights: Float[Tensor, " chosen"]) -> Cells:
        product: Tensor = ((cells @ self.rows.T) * weights) @ self.rows
        return product


def conjugate_gradients(apply: Callable[[Cells], Cells], right: Cells, diagonal: Cells, iterations: int) -> Cells:
    """A few iterations of preconditioned conjugate gradients from zero.

    Args:
        apply: a symmetric positive definite matrix.
        right: right-hand side.
        diagonal: preconditioner.
        iterations: at most so many.
    """
    solution, residual = torch.zeros_like(right), right
    scaled = residual / diagonal
    direction, size = scaled, residual @ scaled
    for _ in range(iterations):
        image = apply(direction)
        step = size / (direction @ image).clamp(min=torch.finfo(size.dtype).tiny)
        solution, residual = solution + step * direction, residual - step * image
        scaled = residual / diagonal
        size, before = residual @ scaled, size
        direction = scaled + size / before.clamp(min=torch.finfo(size.dtype).tiny) * direction
    return solution


def choose_voxels(
    centres_mm: Float[Tensor, "voxel 3"], in_target: Bool[Tensor, " voxel"], count: int, seed: int
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " voxel"]]:
    """Voxels that stand for their neighbours, in targets and elsewhere apart, by a few rounds of Lloyd's algorithm.

    Returns:
        The chosen voxels, and for each voxel the number of the chosen one that is nearest on its side.

    Reference: Lloyd, IEEE Trans Inf Theory 28:129 (1982).
    """
    generator = torch.Generator().manual_seed(seed)
    in_targets = min(round(TARGET_SHARE * count), int(in_target.sum()))
    chosen, neighbourhood, before = [], torch.zeros_like(in_target, dtype=torch.long), 0
    for side, wanted in ((in_target, in_targets), (~in_target, count - in_targets)):
        own = side.nonzero()[:, 0]
        if len(own) == 0 or wanted == 0:
            continue
        some = own[torch.randperm(len(own), generator=generator)[: LLOYD_SHARE * wanted].to(own.device)]
        places, picked = centres_mm[some], torch.arange(min(wanted, len(some)), device=own.device)
        for _ in range(LLOYD_ROUNDS):
            nearest = torch.cdist(places, places[picked]).argmin(dim=1)
            sums = torch.zeros(len(picked), 3, device=own.device).index_add(0, nearest, places)
            means = sums / torch.bincount(nearest, minlength=len(picked)).clamp(min=1)[:, None]
            picked = torch.cdist(means, places).argmin(dim=1)
        neighbourhood[own] = torch.cdist(centres_mm[own], places[picked]).argmin(dim=1) + before
        chosen.append(some[picked])
        before += len(picked)
    return torch.cat(chosen), neighbourhood
