"""Aperture optimization by a quasi-Newton model in fluence, with few dose evaluations and cheap steps between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.aperture_lstm import PlanStep, ProposedStep
from lightning_vmat.l2o.conv_lstm import Memory
from lightning_vmat.l2o.curvature_surrogate import CurvatureSurrogate
from lightning_vmat.l2o.line_search import search_step
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.planning.fluence_model import BfgsMatrix, FluenceModel, MajoriserGuess, SurrogateGuess
from lightning_vmat.planning.leaf_steps import LeafSteps, gradient_step
from lightning_vmat.planning.pairs import PlanPairs
from lightning_vmat.planning.planner import Trace
from lightning_vmat.progress import Progress

StepCorrection = Callable[[ProposedStep, Memory | None], tuple[PlanStep, Memory]]
"""Changes a step before its dose is computed, see `l2o.aperture_lstm.ApertureLSTM`."""

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
    dose. If the objective did not fall, the step is repeated with a damped B, and without correction. Every iterate
    satisfies the machine's limits, and the objective never rises.

    Args:
        evaluations: total number of dose evaluations; a forward projection or an adjoint alone counts as half. A
            planner with a budget replaces it.
        steps: minimiser of the model over leaf tips and monitor units.
        surrogate: starts B from the Hessian of the voxels that are active now; None to start from the majoriser.
        progress: show a progress bar.
        correction: learned change of each step; None for none.
        made: the surrogate of the problem from an earlier `surrogate_of`, which does not depend on weights; None to
            make it.
    """

    evaluations: int = 20
    steps: LeafSteps = field(default_factory=LeafSteps)
    surrogate: SurrogateSettings | None = field(default_factory=SurrogateSettings)
    progress: bool = False
    correction: StepCorrection | None = field(default=None, repr=False)
    made: CurvatureSurrogate | None = field(default=None, repr=False, compare=False)

    def surrogate_of(self, setup: BeamSetup, problem: Problem) -> CurvatureSurrogate | None:
        """Returns the surrogate of a problem within the jaws; None without settings for it."""
        wanted = self.surrogate
        if wanted is None:
            return None
        cell = (wanted.control_points, 1, 1)
        return CurvatureSurrogate.of(problem, wanted.voxels, cell, part=setup.beamlets.open_part)

    @torch.no_grad()
    def refine(
        self,
        setup: BeamSetup,
        problem: Problem,
        plan: Plan,
        trace: Trace,
        stage: str = "apertures",
        pairs: PlanPairs | None = None,
        dose_gy: Float[Tensor, " voxel"] | None = None,
    ) -> Plan:
        """Improves a plan.

        Args:
            setup: control points, beamlets with jaws, and machine.
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
        run = ApertureRun(setup, problem, plan, self, trace, stage, pairs or PlanPairs(), dose_gy)
        with Progress(self.evaluations, stage, shown=self.progress, lasting=False) as progress:
            while run.may_go_on:
                run.iterate()
                progress.advance(run.halves // 2 - progress.done)
        trace.spend(run.note(last=True))
        return run.plan


class ApertureRun:
    """One run: the plan, its dose, and the model of the objective around it.

    Steps are differentiable by the parameters of a correction as far back as the last `detach`.

    Args:
        setup: see `QuasiNewtonApertures.refine`, as all other arguments.
    """

    def __init__(
        self,
        setup: BeamSetup,
        problem: Problem,
        plan: Plan,
        settings: QuasiNewtonApertures,
        trace: Trace,
        stage: str,
        pairs: PlanPairs,
        dose_gy: Tensor | None = None,
    ) -> None:
        self.setup, self.problem, self.settings, self.trace, self.stage = setup, problem, settings, trace, stage
        self.rows, self.columns = setup.beamlets.open_part
        self.inner_setup = replace(setup, beamlets=setup.beamlets.cropped(self.rows, self.columns))
        self.begin, self.halves, self.noted = time.perf_counter(), 0, 0
        self.failures, self.damping = 0, 1.0
        self.plan, self.dose_gy = self._scaled(project_to_limits(plan, setup), dose_gy)
        self.value = float(problem.objective(self.dose_gy))
        majoriser = problem.majoriser(self.dose_gy)[:, self.rows, self.columns] / problem.scale_mu**2
        self.halves += 2
        self.surrogate = settings.made or settings.surrogate_of(setup, problem)
        self.majoriser = majoriser
        self.model = FluenceModel(MajoriserGuess(majoriser.sqrt()), pairs.fluence)
        self.leaf_pairs = pairs.leaves
        self.gradient: Tensor | None = None
        self.last: tuple[Tensor, Tensor] | None = None
        self.steps, self.decrease = 0, 0.0
        self.last_step: PlanStep | None = None
        self.memory: Memory | None = None
        self.note()

    @property
    def may_go_on(self) -> bool:
        """Whether the budget allows one more step, and steps have not failed too often."""
        # a step needs the new dose (half an evaluation) and, after an accepted step, a new gradient (another half)
        needed = 1 + (self.gradient is None)
        return self.halves + needed <= 2 * self.settings.evaluations and self.failures < MOST_FAILURES

    def iterate(self) -> Float[Tensor, ""]:
        """Makes one step and computes its dose; returns the log ratio of the objective after and before."""
        with torch.no_grad():
            inner = self._inner(self.plan)
            model = self._quadratic(inner)
            moved, _, expected = self.settings.steps.descend(
                self.inner_setup, inner, model, model.matrix.diagonal(), self.leaf_pairs
            )
        memory = self.memory
        if self.settings.correction is not None and not self.failures:
            step, memory = self.settings.correction(self._seen(inner, moved, model), self.memory)
            moved = step.after(self._inner(self.plan))
        trial = self._whole(moved)
        dose_gy = self._dose(trial)
        objective = self.problem.objective(dose_gy)
        ratio = (objective.clamp(min=1e-30) / max(self.value, 1e-30)).log()
        self.steps += 1
        if self._accept(trial, dose_gy.detach(), float(objective.detach()), expected):
            self.decrease, self.memory = float(ratio.detach()), memory
            self.last_step = PlanStep.between(inner, self._inner(trial)).detach()
        self.note()
        return ratio

    def detach(self) -> None:
        """Forgets how plan and memory depend on a correction's parameters."""
        self.plan = Plan(*(part.detach() for part in (self.plan.left_mm, self.plan.right_mm, self.plan.mu)))
        if self.memory is not None:
            self.memory = self.memory[0].detach(), self.memory[1].detach()

    def note(self, last: bool = False) -> int:
        """Records the objective at each whole dose evaluation and at the last, rounded up; returns their number."""
        count = -(-self.halves // 2) if last else self.halves // 2
        if count > self.noted:
            self.trace.add(self.stage, count, time.perf_counter() - self.begin, self.value, self.dose_gy)
            self.noted = count
        return count

    def _quadratic(self, inner: Plan) -> _Quadratic:
        """Returns the model around the plan; computes the gradient there after an accepted step."""
        fluence_mu = inner.fluence_mu(self.inner_setup)
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
        return _Quadratic(fluence_mu, self.gradient, self.model.matrix(self.damping))

    def _seen(self, inner: Plan, moved: Plan, model: _Quadratic) -> ProposedStep:
        with torch.no_grad():
            step = PlanStep.between(inner, moved)
            last = self.last_step or PlanStep(torch.zeros_like(step.tips_mm), torch.zeros_like(step.mu))
            tips_mm, mu = gradient_step(self.inner_setup, inner, model, model.matrix.diagonal())
        return ProposedStep(inner, step, last, PlanStep(tips_mm, mu), self.decrease, self.steps)

    def _accept(self, trial: Plan, dose_gy: Tensor, value: float, expected: float) -> bool:
        # damping plays the part of a trust region: it follows the ratio of actual to expected decrease
        if not value < self.value:
            self.damping, self.failures = self.damping * 4, self.failures + 1
            return False
        share = (value - self.value) / min(expected, -1e-12)
        self.damping = max(self.damping / 1.5, 1.0) if share > 0.5 else self.damping * (1.5 if share < 0.15 else 1.0)
        self.plan, self.dose_gy, self.value, self.gradient, self.failures = trial, dose_gy, value, None, 0
        return True

    def _inner(self, plan: Plan) -> Plan:
        """Returns the rows of a plan that are within the jaws."""
        return Plan(plan.left_mm[:, self.rows], plan.right_mm[:, self.rows], plan.mu)

    def _whole(self, inner: Plan) -> Plan:
        """Returns the plan with the rows behind the jaws, which do not move."""
        left, right = self.plan.left_mm.clone(), self.plan.right_mm.clone()
        left[:, self.rows], right[:, self.rows] = inner.left_mm, inner.right_mm
        return project_to_limits(Plan(left, right, inner.mu), self.setup)

    def _scaled(self, plan: Plan, dose_gy: Tensor | None) -> tuple[Plan, Tensor]:
        """Returns the plan with the best multiple of its monitor units, and its dose."""
        fluence_mu = plan.fluence_mu(self.setup)
        if dose_gy is None:
            dose_gy = self._dose(plan)
        else:
            self.halves += 1
        factor = search_step(self.problem.objective, torch.zeros_like(dose_gy), dose_gy, longest=4.0)
        scaled = project_to_limits(replace(plan, mu=plan.mu * max(factor, 0.1)), self.setup)
        multiple = scaled.fluence_mu(self.setup)
        # limits may clip monitor units, and these change the leaf motion: only an exact multiple saves a projection
        if torch.allclose(multiple, factor * fluence_mu, rtol=1e-5, atol=1e-5):
            return scaled, factor * dose_gy
        return scaled, self._dose(scaled)

    def _dose(self, plan: Plan) -> Float[Tensor, " voxel"]:
        self.halves += 1
        return self.problem.dose_of_mu(plan.fluence_mu(self.setup))


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
