"""Projected L-BFGS whose first guess of the curvature is a surrogate of the active voxels' Hessian."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.dose.pooled_rows import Cell
from lightning_vmat.l2o.baselines.lbfgs import LBFGS, LBFGSState
from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate
from lightning_vmat.l2o.descent import scaled_start
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import QuasiNewton
from lightning_vmat.plan.shapes import FluenceMap

BARE_REACH = 2.0  # over the majoriser alone, where a step by the surrogate does not descend; as L-BFGS has it


@dataclass(frozen=True)
class SurrogateQuasiNewton(QuasiNewton):
    """Limited-memory BFGS whose initial inverse is the surrogate's, at the dose and the free beamlets of a step.

    Args:
        surrogate: of the problem.
        solver: `ridge`, `fine_ridge` and `iterations` of `CurvatureSurrogate.solve`.
        weights: the chosen voxels' curvature at the dose of this step; None before the first.
        free: beamlets that may change in this step.
    """

    surrogate: CurvatureSurrogate | None = None
    solver: tuple[float, float, int] = (0.02, 0.1, 8)
    weights: Float[Tensor, " chosen"] | None = None
    free: Bool[Tensor, "control_point leaf_pair beamlet"] | None = None

    def at(
        self,
        problem: Problem,
        dose_gy: Float[Tensor, " voxel"],
        free: Bool[Tensor, "control_point leaf_pair beamlet"],
    ) -> SurrogateQuasiNewton:
        """The model with the curvature of this dose."""
        assert self.surrogate is not None
        curvature = problem.voxel_curvature(dose_gy)[: problem.voxel_count]  # a pulled problem sees fluence behind it
        return replace(self, weights=self.surrogate.weights(curvature), free=free)

    def precondition(self, gradient: FluenceMap) -> FluenceMap:
        """The surrogate's inverse; the majoriser's, with its filter, before there is a dose to go by."""
        if self.surrogate is None or self.weights is None or self.free is None:
            return super().precondition(gradient)
        ridge, fine_ridge, iterations = self.solver
        return self.surrogate.solve(
            gradient,
            self.free,
            self.weights,
            self.majoriser,
            ridge=ridge,
            fine_ridge=fine_ridge,
            iterations=iterations,
        )

    def gradient_step(self, gradient: FluenceMap) -> FluenceMap:
        """Steepest descent in the metric of the majoriser."""
        return -BARE_REACH * super().precondition(gradient)


@dataclass(frozen=True)
class SurrogateLBFGS(LBFGS):
    """`LBFGS` on top of a surrogate of the current curvature, which costs no dose evaluation.

    Args:
        memory: pairs kept.
        reach: of a step before there is a pair to go by; the surrogate knows the scale.
        voxels: chosen voxels of the surrogate.
        cell: its cells of control points, leaf pairs and beamlets.
        ridge: see `CurvatureSurrogate.solve`.
        fine_ridge: see there.
        iterations: see there.
    """

    reach: float = 1.0
    voxels: int = 800
    cell: Cell = (2, 1, 1)
    ridge: float = 0.02
    fine_ridge: float = 0.05
    iterations: int = 8

    def init(self, problem: Problem, x: FluenceMap) -> LBFGSState:
        """The start's best multiple; sets up the surrogate."""
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        model = SurrogateQuasiNewton(
            majoriser,
            self.reach,
            self.memory,
            surrogate=CurvatureSurrogate.of(problem, self.voxels, self.cell),
            solver=(self.ridge, self.fine_ridge, self.iterations),
        )
        return LBFGSState(x, dose_gy, value, 1, model)
