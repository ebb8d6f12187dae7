"""Minimisation of a function of the delivered fluence over leaf tips and monitor units, without dose evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan, delivered_fluence
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_motion import sector_ends, time_in_beamlets
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.pairs import Pairs

FluenceFunction = Callable[[Tensor], tuple[float, Tensor]]
"""Value and gradient by fluence [control_point, leaf_pair, beamlet] in MU."""

SHORTENINGS, SHORTER = 6, 0.35  # number and factor of shortenings of a step that does not lower the function
TINY = 1e-30


@dataclass(frozen=True)
class LeafSteps:
    """Projected L-BFGS over leaf tips and monitor units; every iterate satisfies the machine's limits.

    Args:
        iterations: maximum number of evaluations of the function; the last line search may exceed it.
        max_tip_beamlets: longest step of a leaf tip, in beamlet widths.
        max_mu_share: largest change of a sector's monitor units in a step, as a share of them.

    Reference: Nocedal and Wright 2006, algorithm 7.4.
    """

    iterations: int = 12
    max_tip_beamlets: float = 1.0
    max_mu_share: float = 0.3

    def descend(
        self,
        setup: BeamSetup,
        plan: Plan,
        function: FluenceFunction,
        curvature: FluenceMap,
        pairs: Pairs,
    ) -> tuple[Plan, FluenceMap, float]:
        """Returns the best plan found, its fluence and its value.

        Args:
            setup: control points, beamlets and machine.
            plan: start, within the limits.
            function: function of the delivered fluence.
            curvature: rough second derivative by fluence, which scales the first step.
            pairs: what earlier steps told of the curvature by leaf tips and monitor units, on this function or on one
                like it; the new steps are added.
        """
        value, gradient, fluence_mu = _evaluate(setup, plan, function)
        inverse = 1 / _diagonal(setup, plan, curvature)
        reach, used, failures = 1.0, 1, 0
        while used < self.iterations and failures < 4:
            direction = _quasi_newton_step(gradient, pairs, inverse, reach)
            for shortening in range(SHORTENINGS):
                trial = self._moved(setup, plan, direction * SHORTER**shortening)
                trial_value, trial_gradient, trial_mu = _evaluate(setup, trial, function)
                used += 1
                if trial_value < value:
                    break
            else:
                pairs.forget()
                reach, failures = reach * 0.3, failures + 1
                continue
            failures = 0
            if not pairs.steps:
                reach *= 1.5 if shortening == 0 else 0.6
            # the step after projection, not the direction: the pair describes where the plan really went
            pairs.observe(_flat(trial) - _flat(plan), trial_gradient - gradient)
            plan, value, gradient, fluence_mu = trial, trial_value, trial_gradient, trial_mu
        return plan, fluence_mu, value

    def _moved(self, setup: BeamSetup, plan: Plan, step: Float[Tensor, " variable"]) -> Plan:
        """Returns the plan after a step, clamped to the longest step and projected to the limits."""
        longest = self.max_tip_beamlets * setup.beamlets.beamlet_width_mm
        tips, mu = step[: -len(plan.mu)].view(2, *plan.left_mm.shape).clamp(-longest, longest), step[-len(plan.mu) :]
        most = self.max_mu_share * plan.mu
        moved = Plan(plan.left_mm + tips[0], plan.right_mm + tips[1], plan.mu + torch.minimum(mu.maximum(-most), most))
        return project_to_limits(moved, setup)


def gradient_step(
    setup: BeamSetup, plan: Plan, function: FluenceFunction, curvature: FluenceMap
) -> tuple[Float[Tensor, "bank control_point leaf_pair"], Float[Tensor, " control_point"]]:
    """Returns the step of steepest descent over the second derivative of each variable: of tips in mm, at most one
    beamlet width, and of monitor units.

    Args:
        setup: see `LeafSteps.descend`, as all other arguments.
    """
    _, gradient, _ = _evaluate(setup, plan, function)
    step = -gradient / _diagonal(setup, plan, curvature)
    points, width_mm = len(plan.mu), setup.beamlets.beamlet_width_mm
    return step[:-points].view(2, *plan.left_mm.shape).clamp(-width_mm, width_mm), step[-points:]


def _evaluate(setup: BeamSetup, plan: Plan, function: FluenceFunction) -> tuple[float, Tensor, Tensor]:
    """Returns value, gradient by all variables, and fluence."""
    left, right, mu = (value.detach().requires_grad_() for value in (plan.left_mm, plan.right_mm, plan.mu))
    with torch.enable_grad():
        fluence_mu = delivered_fluence(left, right, mu, setup)
    value, by_fluence = function(fluence_mu.detach())
    with torch.enable_grad():
        slope = (fluence_mu * by_fluence).sum()  # instead of `grad_outputs`, for which torch imports sympy: 0.5 s
    gradient = torch.autograd.grad(slope, (left, right, mu))
    return value, torch.cat([part.flatten() for part in gradient]), fluence_mu.detach()


def _flat(plan: Plan) -> Float[Tensor, " variable"]:
    return torch.cat((plan.left_mm.flatten(), plan.right_mm.flatten(), plan.mu))


def _diagonal(setup: BeamSetup, plan: Plan, curvature: FluenceMap) -> Float[Tensor, " variable"]:
    """Returns the second derivative by each variable for a given one by fluence, with a lower bound for tips."""
    # chain rule without the second derivative of fluence (Gauss-Newton): h_v = sum_b (dF_b / dv)^2 h_b
    tips_mm = torch.stack((plan.left_mm, plan.right_mm))
    begin, end = sector_ends(tips_mm, plan.mu, setup)
    share = (
        time_in_beamlets(begin, tips_mm, setup.beamlets) + time_in_beamlets(tips_mm, end, setup.beamlets)
    ) / 2  # derivative of a beamlet's open fraction by a common shift of the path, in beamlet widths
    per_mm = (plan.mu * (1 - setup.machine.leaf_transmission) / setup.beamlets.beamlet_width_mm).square()[:, None]
    by_tip = torch.maximum((share.square() * curvature).sum(dim=-1), 0.02 * curvature.mean()) * per_mm
    relative = plan.fluence_mu(setup) / plan.mu[:, None, None]
    by_mu = (relative.square() * curvature).sum(dim=(1, 2))
    return torch.cat((by_tip.flatten(), by_mu)).clamp(min=TINY)


def _quasi_newton_step(
    gradient: Float[Tensor, " variable"], pairs: Pairs, inverse: Float[Tensor, " variable"], reach: float
) -> Float[Tensor, " variable"]:
    """Returns the quasi-Newton step by two-loop recursion."""
    known = list(zip(pairs.steps, pairs.changes, pairs.curvatures, strict=True))
    shift, weights = gradient, []
    for step, change, curvature in reversed(known):
        weights.append((step @ shift) / curvature)
        shift = shift - weights[-1] * change
    if known:
        _, change, curvature = known[-1]
        reach = curvature / max(float(change @ (inverse * change)), TINY)
    shift = reach * inverse * shift
    for (step, change, curvature), weight in zip(known, reversed(weights), strict=True):
        shift = shift + step * (weight - (change @ shift) / curvature)
    return -shift
