"""The learned optimizer on apertures: a convolutional LSTM that corrects each step of leaf tips and monitor units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_vmat.l2o.conv_lstm import ConvLSTMCell, Memory
from lightning_vmat.plan.aperture import Plan

DIRECTIONS = 3  # the model's step, the last step, the scaled gradient
CONTEXT = 9  # see `_features`
SMALLEST_MU = 0.3  # share of a sector's monitor units that a step leaves at least


@dataclass(frozen=True)
class PlanStep:
    """A change of a plan.

    Args:
        tips_mm: of the left and the right bank.
        mu: of the monitor units.
    """

    tips_mm: Float[Tensor, "bank control_point leaf_pair"]
    mu: Float[Tensor, " control_point"]

    @classmethod
    def between(cls, plan: Plan, moved: Plan) -> PlanStep:
        """Returns the change from one plan to another."""
        tips_mm = torch.stack((moved.left_mm - plan.left_mm, moved.right_mm - plan.right_mm))
        return cls(tips_mm, moved.mu - plan.mu)

    def after(self, plan: Plan) -> Plan:
        """Returns the plan after the change."""
        return Plan(plan.left_mm + self.tips_mm[0], plan.right_mm + self.tips_mm[1], plan.mu + self.mu)

    def detach(self) -> PlanStep:
        """Returns the change without its graph."""
        return PlanStep(self.tips_mm.detach(), self.mu.detach())


@dataclass(frozen=True)
class ProposedStep:
    """What is known before a step of aperture optimization.

    Args:
        plan: the plan, within the jaws.
        step: the step to the minimum of the optimizer's model.
        last: the last step; zero before the first.
        gradient: step of steepest descent over the rough second derivative of each variable.
        decrease: log ratio of the objective in the last step.
        number: steps made so far.
    """

    plan: Plan
    step: PlanStep
    last: PlanStep
    gradient: PlanStep
    decrease: float
    number: int


class ApertureLSTM(nn.Module):
    """Corrects the steps of aperture optimization, with one bounded gain for each direction at each leaf tip.

    The corrected step is `step + sum_j tanh(u_j) d_j`: d_j are the model's step, the last step and the scaled gradient,
    u_j the network's outputs. Monitor units have gains of their own for the first two. Both banks share the network: it
    sees each in the direction in which its leaves open, together with the opposed leaf. Neighbours are those along the
    arc and in the bank. Inputs are divided by the size of the step, so that they do not depend on units or weights. An
    untrained network changes nothing.

    Args:
        hidden: channels of the LSTM.

    Reference: Andrychowicz et al. 2016 (detached inputs); Lv et al. 2017 (bounded, normalised steps).
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.encode = nn.Conv2d(DIRECTIONS + CONTEXT, hidden, (5, 3), padding=(2, 1))
        self.widen = nn.Conv2d(hidden, hidden, (5, 3), padding=(6, 1), dilation=(3, 1))  # 15 control points
        self.lstm = ConvLSTMCell(hidden, hidden)
        self.tip_gains = nn.Conv2d(hidden, DIRECTIONS, 1)
        self.mu_gains = nn.Linear(hidden, 2)
        for last in (self.tip_gains, self.mu_gains):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, seen: ProposedStep, memory: Memory | None) -> tuple[PlanStep, Memory]:
        """Returns the corrected step, and the memory after it."""
        directions = torch.stack((seen.step.tips_mm, seen.last.tips_mm, seen.gradient.tips_mm), dim=1)
        encoded = self.encode(_features(seen, directions)).tanh()
        encoded = encoded + self.widen(encoded).tanh()
        memory = self.lstm(encoded, memory or self.lstm.start(encoded))
        output = memory[0]
        tips_mm = directions[:, 0] + (self.tip_gains(output).tanh() * directions).sum(dim=1)
        gain, last_gain = self.mu_gains(output.mean(dim=(0, 3)).T).tanh().unbind(dim=1)
        mu = (1 + gain) * seen.step.mu + last_gain * seen.last.mu
        return PlanStep(tips_mm, mu.maximum((SMALLEST_MU - 1) * seen.plan.mu)), memory


def _features(
    seen: ProposedStep, directions: Float[Tensor, "bank direction control_point leaf_pair"]
) -> Float[Tensor, "bank feature control_point leaf_pair"]:
    """Returns the inputs of the network, of order one, for each bank in the direction in which its leaves open."""
    plan, step = seen.plan, seen.step
    tips_mm = torch.stack((plan.left_mm, plan.right_mm))
    opens = tips_mm.new_tensor((-1.0, 1.0))[:, None, None]
    size_mm = step.tips_mm.square().mean().sqrt() + 1e-6
    own = torch.asinh(opens[:, None] * directions / size_mm)
    one = torch.ones_like(tips_mm)
    context = [
        *own[:, :2].flip(0).unbind(dim=1),  # of the opposed leaf
        one * (plan.right_mm - plan.left_mm) / 30,
        opens * tips_mm / 50,
        one * (plan.mu / plan.mu.mean()).log().clamp(-3, 3)[:, None],
        one * (10 * step.mu / plan.mu).clamp(-5, 5)[:, None],
        one * min(seen.number, 30) / 10,
        one * size_mm.log(),
        one * 5 * max(seen.decrease, -1.0),
    ]
    return torch.cat((own, torch.stack(context, dim=1)), dim=1)
