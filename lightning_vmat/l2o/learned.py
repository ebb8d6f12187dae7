"""The learned optimizer: a convolutional LSTM that corrects a quasi-Newton step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from lightning_vmat.l2o.conv_lstm import ConvLSTMCell, Memory
from lightning_vmat.l2o.descent import scaled_start
from lightning_vmat.l2o.features import CONTEXT, DIRECTIONS, MOMENTUM, Features
from lightning_vmat.l2o.learned_filter import LearnedFilter
from lightning_vmat.l2o.line_search import longest_step, search_step
from lightning_vmat.l2o.optimizer import State
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.l2o.quasi_newton import QuasiNewton
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class LearnedState(State):
    """Adds the quasi-Newton model, the momenta, the last step with its length and decrease, and the LSTM's memory."""

    model: QuasiNewton
    momenta: tuple[FluenceMap, ...]
    last_step: FluenceMap
    last_length: float
    last_decrease: float
    memory: Memory | None

    def detach(self) -> LearnedState:
        """Returns the state without the graph of the steps before it."""
        memory = None if self.memory is None else (self.memory[0].detach(), self.memory[1].detach())
        return replace(self, x=self.x.detach(), dose_gy=self.dose_gy.detach(), value=self.value.detach(), memory=memory)


class LearnedOptimizer(nn.Module):
    """Optimizer with learned curvature, whose quasi-Newton step a convolutional LSTM corrects for each beamlet.

    The quasi-Newton model contains a learned filter instead of a hand-designed one, see `LearnedFilter`. The inputs of
    the LSTM are the quasi-Newton step, the majoriser-scaled gradient, its momenta and the last step, all divided by one
    size, so that they do not depend on units, weights or prescriptions; any number of control points and any grid will
    do. Its outputs are bounded gains of these directions and of a filtered gradient. The step is projected onto
    non-negative fluence and its length is searched in dose space, so that no step raises the objective. Untrained, the
    optimizer is projected L-BFGS.

    Args:
        hidden: channels of the LSTM.
        filter_size: side of the learned filter of the gradient, in beamlets, odd.
        memory: pairs in the quasi-Newton model.
        reach: length of the first gradient step, as a factor on the preconditioned gradient.

    Reference: Andrychowicz et al. 2016 (detached inputs); Lv et al. 2017 (bounded, normalised steps).
    """

    def __init__(self, hidden: int = 16, filter_size: int = 7, memory: int = 12, reach: float = 2.0) -> None:
        super().__init__()
        self.memory, self.reach = memory, reach
        self.sharpen = LearnedFilter()
        self.encode = nn.Conv2d(DIRECTIONS + CONTEXT, hidden, 3, padding=1)
        self.lstm = ConvLSTMCell(hidden, hidden)
        self.gains = nn.Conv2d(hidden, DIRECTIONS + 1, 1)
        self.filter = nn.Conv2d(1, 1, filter_size, padding=filter_size // 2, bias=False)
        nn.init.zeros_(self.gains.weight)
        nn.init.zeros_(self.gains.bias)  # type: ignore[arg-type]
        with torch.no_grad():  # starts as a sharpening filter, which counteracts the blur by scatter and penumbra
            self.filter.weight.fill_(-1 / filter_size**2)
            self.filter.weight[0, 0, filter_size // 2, filter_size // 2] += 1

    def init(self, problem: Problem, x: FluenceMap) -> LearnedState:
        """Returns the state at the best multiple of a start (one dose evaluation)."""
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        model = QuasiNewton(majoriser, self.reach, self.memory, self.sharpen)
        momenta = tuple(torch.zeros_like(x) for _ in MOMENTUM)
        return LearnedState(x, dose_gy, value, 1, model, momenta, torch.zeros_like(x), 1.0, 0.0, None)

    def update(self, problem: Problem, state: LearnedState) -> LearnedState:
        """Returns the state after one corrected quasi-Newton step (one dose evaluation); never raises the objective."""
        # inputs are detached, as in Andrychowicz et al. 2016: no second derivatives of the objective
        x, gradient = state.x.detach(), problem.gradient(state.dose_gy)
        model = state.model.observe(x, gradient)
        free = (x > 0) | (gradient < 0)  # beamlets at zero that the gradient would lower stay (Bertsekas 1982)
        steepest = model.gradient_step(gradient) * free
        momenta = tuple(b * m + (1 - b) * steepest.detach() for b, m in zip(MOMENTUM, state.momenta, strict=True))
        steps = [model.step(gradient, free), steepest, *momenta, state.last_step]
        progress = (state.last_length, state.last_decrease, float(state.evaluations))
        features = Features.gather(x, free.to(x), steps, model.majoriser, progress)
        bend, memory = self._bend(features, state.memory)
        direction = (state.x + (steps[0] + bend) * free).clamp(min=0) - state.x
        # safeguard: if the correction gives no descent direction or the last step failed, take the quasi-Newton step,
        # and if that gives none either, a gradient step without the pairs
        if not float((gradient * direction.detach()).sum()) < 0 or state.last_length == 0:
            direction = (state.x + steps[0]).clamp(min=0) - state.x
        if not float((gradient * direction.detach()).sum()) < 0:
            model = model.forget()
            direction = (state.x + model.gradient_step(gradient)).clamp(min=0) - state.x
        return self._move(problem, state, direction, model, momenta, memory)

    def _bend(self, features: Features, memory: Memory | None) -> tuple[FluenceMap, Memory]:
        directions = features.directions
        seen = torch.cat((torch.asinh(directions), features.context), dim=1)
        encoded = nn.functional.elu(self.encode(seen))
        memory = self.lstm(encoded, memory or self.lstm.start(encoded))
        gains = self.gains(memory[0]).tanh()
        candidates = torch.cat((directions, self.filter(directions[:, 1:2])), dim=1)
        return features.size * (gains * candidates).sum(dim=1), memory

    def _move(
        self,
        problem: Problem,
        state: LearnedState,
        direction: FluenceMap,
        model: QuasiNewton,
        momenta: tuple[FluenceMap, ...],
        memory: Memory,
    ) -> LearnedState:
        """Searches the step's length and moves.

        The length minimises the objective, whose derivative by it is therefore zero: it is treated as a constant.
        """
        change_gy = problem.dose(direction)
        old_x, old_dose_gy = state.x.detach(), state.dose_gy.detach()
        length = search_step(
            problem.objective, old_dose_gy, change_gy.detach(), longest_step(old_x, direction.detach())
        )
        x = (state.x + length * direction).clamp(min=0)
        dose_gy = state.dose_gy + length * change_gy
        value = problem.objective(dose_gy)
        if length == 0:
            model = model.forget()
        decrease = math.log((float(value.detach()) + 1e-30) / (float(state.value.detach()) + 1e-30))
        moved = x.detach() - old_x
        return LearnedState(x, dose_gy, value, state.evaluations + 1, model, momenta, moved, length, decrease, memory)
