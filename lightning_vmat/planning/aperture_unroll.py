"""Unrolls of aperture optimization that are differentiable by the parameters of its correction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.alternating import deliverable
from lightning_vmat.planning.pairs import PlanPairs
from lightning_vmat.planning.planner import Trace
from lightning_vmat.planning.quasi_newton_apertures import ApertureRun, QuasiNewtonApertures, StepCorrection

UNLIMITED = 10_000  # evaluations: the caller counts steps
WORST = 0.3  # log ratio that a failed step counts at most, so that a single one does not rule the gradient


@torch.no_grad()
def begin_apertures(
    setup: BeamSetup, problem: Problem, x: FluenceMap, correction: StepCorrection | None, steps: int = 0
) -> ApertureRun:
    """Returns a run of aperture optimization from a sequenced fluence, after some steps.

    Args:
        setup: control points, beamlets with jaws, and machine.
        problem: objective of the delivered dose.
        x: fluence over `problem.scale_mu`.
        correction: learned change of each step; None for none.
        steps: steps to make; more until one succeeds, because only then a correction is asked.
    """
    settings = QuasiNewtonApertures(UNLIMITED, correction=correction)
    run = ApertureRun(setup, problem, deliverable(setup, problem, x), settings, Trace(), "apertures", PlanPairs())
    while (run.steps < steps or run.failures) and run.may_go_on:
        run.iterate()
    run.detach()
    return run


def unroll_apertures(run: ApertureRun, steps: int) -> Float[Tensor, ""]:
    """Makes steps and returns their meta-loss, differentiable by the correction's parameters.

    The loss is the mean over the steps of `log(value / value before)`, with the value before as a constant: all
    problems, and all stages of one problem, have equal weight. A step that fails ends the unroll, because the plan is
    then that of the step before.

    Args:
        run: the run; it goes on from where it is.
        steps: number of steps, at least 1.
    """
    ratios = []
    for _ in range(steps):
        ratios.append(run.iterate().clamp(max=WORST))
        if run.failures:
            break
    return torch.stack(ratios).mean()


@torch.no_grad()
def refined_value(
    setup: BeamSetup, problem: Problem, x: FluenceMap, correction: StepCorrection | None, evaluations: int
) -> tuple[float, float]:
    """Returns the objective of a sequenced fluence, and after so many dose evaluations of aperture optimization."""
    run = begin_apertures(setup, problem, x, correction)
    first = run.value
    while run.halves < 2 * evaluations and run.may_go_on:
        run.iterate()
    return first, run.value
