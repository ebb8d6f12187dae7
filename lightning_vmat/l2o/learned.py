"""The learned optimizer: a convolutional LSTM that bends a quasi-Newton step."""

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
    """Adds the model of the curvature, the momenta, the last step and its success, and the LSTM's memory."""

    model: QuasiNewton
    momenta: tuple[FluenceMap, ...]
    last_step: FluenceMap
    last_length: float
    last_decrease: float
    memory: Memory | None

    def detach(self) -> LearnedState:
        """The same state, cut from the steps that led to it."""
        memory = None if self.memory is None else (self.memory[0].detach(), self.memory[1].detach())
        return replace(self, x=self.x.detach(), dose_gy=self.dose_gy.detach(), value=self.value.detach(), memory=memory)


class LearnedOptimizer(nn.Module):
    """Optimizer with learned curvature, whose step a convolutional LSTM bends over the beam's-eye view.

    The quasi-Newton step starts from a learned filter instead of a hand-made one, see `LearnedFilter`. The LSTM
    sees that step, the majoriser-scaled gradient, its momenta and the last step, all over one size, so it knows
    nothing of units, weights or prescriptions, and takes any number of control points and any grid. It answers with
    a bounded gain of each of them and of a filtered gradient. The step is projected onto non-negative fluence and
    searched exactly in dose space, so no step raises the objective; a network that has learnt nothing yet gives
    projected L-BFGS.

    Args:
        hidden: channels of the LSTM.
        filter_size: side of the learned filter of the gradient, in beamlets, odd.
        memory: pairs in the quasi-Newton model.
        reach: first gradient step over the preconditioned one.

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
        with torch.no_grad():  # a sharpening filter to begin with: what scatter and penumbra blur
            self.filter.weight.fill_(-1 / filter_size**2)
            self.filter.weight[0, 0, filter_size // 2, filter_size // 2] += 1

    def init(self, problem: Problem, x: FluenceMap) -> LearnedState:
        x, dose_gy, value, majoriser = scaled_start(problem, x)
        model = QuasiNewton(majoriser, self.reach, self.memory, self.sharpen)
        momenta = tuple(torch.zeros_like(x) for _ in MOMENTUM)
        return LearnedState(x, dose_gy, value, 1, model, momenta, torch.zeros_like(x), 1.0, 0.0, None)

    def update(self, problem: Problem, state: LearnedState) -> LearnedState:
        x, gradient = state.x.detach(), problem.gradient(state.dose_gy)
        model = state.model.observe(x, gradient)
        free = (x > 0) | (gradient < 0)
        steepest = model.gradient_step(gradient) * free
        momenta = tuple(b * m + (1 - b) * steepest.detach() for b, m in zip(MOMENTUM, state.momenta, strict=True))
        steps = [model.step(gradient, free), steepest, *momenta, state.last_step]
        progress = (state.last_length, state.last_decrease, float(state.evaluations))
        features = Features.gather(x, free.to(x), steps, model.majoriser, progress)
        bend, memory = self._bend(features, state.memory)
        direction = (state.x + (steps[0] + bend) * free).clamp(min=0) - state.x
        if not float((gradient * direction.detach()).sum()) < 0 or state.last_length == 0:  # the guard
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
        """The exact search. Its length is a minimiser, so it is differentiated as a constant."""
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
