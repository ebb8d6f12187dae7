"""Aperture optimization by a quasi-Newton model in fluence, with few dose evaluations and cheap steps between them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate
from lightning_vmat.l2o.line_search import search_step
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.fluence_model import BfgsMatrix, FluenceModel, MajoriserGuess, Pairs, SurrogateGuess
from lightning_vmat.planning.leaf_steps import LeafSteps
from lightning_vmat.planning.planner import Trace
from lightning_vmat.progress import Progress

MOST_FAILURES = 8  # failed steps in a row, each with four times the damping of the one before


@dataclass(frozen=True)
class SurrogateSettings:
    """The surrogate of the Hessian that starts the model, see `CurvatureSurrogate` and `SurrogateGuess`.

    Chosen on the training phantoms 3, 102 and 104: with it five dose evaluations from the open field give the objective
    that took fifteen to twenty without. Twice the voxels gain 1 % more there, half of them lose 5 %.

    Args:
        voxels: chosen voxels.
        control_points: in a cell.
        ridge: share of the majoriser.
    """

    voxels: int = 400
    control_points: int = 3
    ridge: float = 0.005


@dataclass(frozen=True)
class QuasiNewtonApertures:
    """Sequential quadratic programming in fluence over leaf tips and monitor units.

    The objective is smooth in fluence but has kinks in leaf tips. The curvature is therefore approximated in fluence,
    by a limited-memory BFGS matrix B. Each iteration finds the leaf tips and monitor units whose *exact* delivered
    fluence F' lowers `g (F' - F) + (F' - F) B (F' - F) / 2`, which costs no dose evaluation, and then computes their
    dose. If the objective did not fall, the step is repeated with a damped B. Every iterate satisfies the machine's
    limits, and the objective never rises.

    Args:
        evaluations: total number of dose evaluations; a forward projection or an adjoint alone counts as half.
        steps: minimiser of the model over leaf tips and monitor units.
        surrogate: starts B from the Hessian of the voxels that are active now; None to start from the majoriser.
        progress: show a progress bar.
        made: the surrogate of the problem from an earlier `surrogate_of`, which does not depend on weights; None to
            make it.
    """

    evaluations: int = 20
    steps: LeafSteps = field(default_factory=LeafSteps)
    surrogate: SurrogateSettings | None = None
    progress: bool = False
    made: CurvatureSurrogate | None = field(default=None, repr=False, compare=False)

    def surrogate_of(self, case: Case, problem: Problem) -> CurvatureSurrogate | None:
        """Returns the surrogate of a problem within the case's jaws; None without settings for it."""
        wanted = self.surrogate
        if wanted is None:
            return None
        cell = (wanted.control_points, 1, 1)
        return CurvatureSurrogate.of(problem, wanted.voxels, cell, part=case.beamlets.open_part)

    @torch.no_grad()
    def refine(
        self,
        case: Case,
        problem: Problem,
        plan: Plan,
        trace: Trace,
        stage: str = "apertures",
        pairs: Pairs | None = None,
        dose_gy: Float[Tensor, " voxel"] | None = None,
    ) -> Plan:
        """Improves a plan.

        Args:
            case: gives beamlets, machine and control points.
            problem: objective of the delivered dose.
            plan: start; projected to the machine's limits and scaled first.
            trace: records the course, at whole dose evaluations.
            stage: name of the stage in the trace.
            pairs: what earlier steps told of the curvature, on this problem or on one with other voxels; the new steps
                are added. None to begin without.
            dose_gy: dose of a plan within the limits on the problem's voxels, where it is known already. It counts as
                if it were computed, so that the result is the same.

        Returns:
            The best plan found, without violations.
        """
        run = _Run(case, problem, plan, self, trace, stage, pairs or Pairs(), dose_gy)
        with Progress(self.evaluations, stage, shown=self.progress, lasting=False) as progress:
            # a step needs the new dose (half an evaluation) and, after an accepted step, a new gradient (another half)
            while run.halves + 1 + (run.gradient is None) <= 2 * self.evaluations and run.failures < MOST_FAILURES:
                run.iterate()
                progress.advance(run.halves // 2 - progress.done)
        trace.spend(run.note(last=True))
        return run.plan


def quick_apertures(evaluations: int, progress: bool = False) -> QuasiNewtonApertures:
    """The aperture optimizer of all planners: the quasi-Newton model, from the surrogate's first guess."""
    steps = LeafSteps(iterations=25)  # a better model is worth more work between two dose evaluations
    return QuasiNewtonApertures(evaluations, steps, surrogate=SurrogateSettings(), progress=progress)


class _Run:
    """State of one run: the plan, its dose, and the model of the objective around it."""

    def __init__(
        self,
        case: Case,
        problem: Problem,
        plan: Plan,
        settings: QuasiNewtonApertures,
        trace: Trace,
        stage: str,
        pairs: Pairs,
        dose_gy: Tensor | None = None,
    ) -> None:
        self.case, self.problem, self.settings, self.trace, self.stage = case, problem, settings, trace, stage
        self.rows, self.columns = case.beamlets.open_part
        self.setup = replace(case.beam_setup, beamlets=case.beamlets.cropped(self.rows, self.columns))
        self.begin, self.halves, self.noted = time.perf_counter(), 0, 0
        self.failures, self.damping = 0, 1.0
        self.plan, self.dose_gy = self._scaled(project_to_limits(plan, case.beam_setup), dose_gy)
        self.value = float(problem.objective(self.dose_gy))
        majoriser = problem.majoriser(self.dose_gy)[:, self.rows, self.columns] / problem.scale_mu**2
        self.halves += 2
        self.surrogate = settings.made or settings.surrogate_of(case, problem)
        self.majoriser = majoriser
        self.model = FluenceModel(MajoriserGuess(majoriser.sqrt()), pairs)
        self.gradient: Tensor | None = None
        self.last: tuple[Tensor, Tensor] | None = None
        self.note()

    def iterate(self) -> None:
        """Makes one step of the model and computes its dose."""
        inner = Plan(self.plan.left_mm[:, self.rows], self.plan.right_mm[:, self.rows], self.plan.mu)
        fluence_mu = inner.fluence_mu(self.setup)
        if self.gradient is None:
            gradient = self.problem.gradient(self.dose_gy)[:, self.rows, self.columns] / self.problem.scale_mu
            self.halves += 1
            if self.last is not None:
                self.model.pairs.observe(fluence_mu - self.last[0], gradient - self.last[1])
            self.gradient, self.last = gradient, (fluence_mu, gradient)
            if self.surrogate is not None and self.settings.surrogate is not None:
                weights = self.surrogate.weights(self.problem.voxel_curvature(self.dose_gy)) / self.problem.scale_mu**2
                self.model.guess = SurrogateGuess(
                    self.surrogate, weights, self.majoriser, self.settings.surrogate.ridge
                )
        matrix = self.model.matrix(self.damping)
        model = _Quadratic(fluence_mu, self.gradient, matrix)
        moved, _, expected = self.settings.steps.descend(self.setup, inner, model, matrix.diagonal())
        trial = self._whole(moved)
        dose_gy = self._dose(trial)
        value = float(self.problem.objective(dose_gy))
        self._accept(trial, dose_gy, value, expected)
        self.note()

    def note(self, last: bool = False) -> int:
        """Records the objective at each whole dose evaluation and at the last, rounded up; returns their number."""
        count = -(-self.halves // 2) if last else self.halves // 2
        if count > self.noted:
            self.trace.add(self.stage, count, time.perf_counter() - self.begin, self.value, self.dose_gy)
            self.noted = count
        return count

    def _accept(self, trial: Plan, dose_gy: Tensor, value: float, expected: float) -> None:
        # damping plays the part of a trust region: it follows the ratio of actual to expected decrease
        if not value < self.value:
            self.damping, self.failures = self.damping * 4, self.failures + 1
            return
        share = (value - self.value) / min(expected, -1e-12)
        self.damping = max(self.damping / 1.5, 1.0) if share > 0.5 else self.damping * (1.5 if share < 0.15 else 1.0)
        self.plan, self.dose_gy, self.value, self.gradient, self.failures = trial, dose_gy, value, None, 0

    def _whole(self, inner: Plan) -> Plan:
        """Returns the plan with the rows behind the jaws, which do not move."""
        left, right = self.plan.left_mm.clone(), self.plan.right_mm.clone()
        left[:, self.rows], right[:, self.rows] = inner.left_mm, inner.right_mm
        return project_to_limits(Plan(left, right, inner.mu), self.case.beam_setup)

    def _scaled(self, plan: Plan, dose_gy: Tensor | None) -> tuple[Plan, Tensor]:
        """Returns the plan with the best multiple of its monitor units, and its dose."""
        fluence_mu = plan.fluence_mu(self.case.beam_setup)
        if dose_gy is None:
            dose_gy = self._dose(plan)
        else:
            self.halves += 1
        factor = search_step(self.problem.objective, torch.zeros_like(dose_gy), dose_gy, longest=4.0)
        scaled = project_to_limits(replace(plan, mu=plan.mu * max(factor, 0.1)), self.case.beam_setup)
        multiple = scaled.fluence_mu(self.case.beam_setup)
        # limits may clip monitor units, and these change the leaf motion: only an exact multiple saves a projection
        if torch.allclose(multiple, factor * fluence_mu, rtol=1e-5, atol=1e-5):
            return scaled, factor * dose_gy
        return scaled, self._dose(scaled)

    def _dose(self, plan: Plan) -> Float[Tensor, " voxel"]:
        self.halves += 1
        return self.problem.dose_of_mu(plan.fluence_mu(self.case.beam_setup))


@dataclass(frozen=True)
class _Quadratic:
    """`g (F' - F) + (F' - F) B (F' - F) / 2` and its gradient by F'."""

    fluence_mu: Tensor
    gradient: Tensor
    matrix: BfgsMatrix

    def __call__(self, fluence_mu: Tensor) -> tuple[float, Tensor]:
        step = fluence_mu - self.fluence_mu
        product: Any = self.matrix @ step
        return float((step * (self.gradient + product / 2)).sum()), self.gradient + product
