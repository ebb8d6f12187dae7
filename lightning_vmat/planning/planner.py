"""The protocols of planners and aperture optimizers, and their results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.html_table import html_table
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class TracePoint:
    """One point of a trace: dose evaluations and wall seconds so far, and the objective reached."""

    stage: str
    dose_evaluations: int
    seconds: float
    objective: float


Watch = Callable[[TracePoint, Float[Tensor, " voxel"] | None], None]
"""Called with a point of a trace and, where it is known, the dose there."""


@dataclass
class Trace:
    """Course of planning one case.

    A dose evaluation on a smaller sample of voxels counts as its share of the voxels, see `sample`.

    Args:
        points: objective after dose evaluations.
        seconds: wall seconds by stage.
        spent: dose evaluations of all finished stages.
        share: what a dose evaluation counts now.
        watch: called with every point that is added, and with the dose of the problem's voxels in Gy where the stage
            gives it; shows progress. An exception that it raises ends the planning.
    """

    points: list[TracePoint] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0
    share: float = 1.0
    watch: Watch | None = field(default=None, repr=False, compare=False)

    @property
    def dose_evaluations(self) -> int:
        """Dose evaluations of the whole sample, rounded up."""
        return self._whole(0)

    def _whole(self, evaluations: int) -> int:
        return math.ceil(self.spent + evaluations * self.share - 1e-6)

    def __repr__(self) -> str:
        end = f", objective {self.points[-1].objective:.4g} on the voxel sample" if self.points else ""
        return f"{self.dose_evaluations} dose evaluations in {sum(self.seconds.values()):.1f} s{end}"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Returns a context manager that adds its wall time to a stage, with all that it started on a GPU."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    @contextmanager
    def sample(self, share: float) -> Iterator[None]:
        """Returns a context manager in which a dose evaluation counts as this share of one."""
        before, self.share = self.share, share
        try:
            yield
        finally:
            self.share = before

    def add(
        self,
        stage: str,
        evaluations: int,
        seconds: float,
        objective: float,
        dose_gy: Float[Tensor, " voxel"] | None = None,
    ) -> None:
        """Adds the objective after `evaluations` and `seconds` of a stage, both counted from the last stage's end.

        Args:
            stage: name of the stage.
            evaluations: dose evaluations since the last stage's end.
            seconds: wall seconds since then.
            objective: value on the problem's voxels.
            dose_gy: dose of these voxels, for `watch`; not kept, and not passed on from a smaller sample of voxels.
        """
        before = sum(self.seconds.values())
        point = TracePoint(stage, self._whole(evaluations), before + seconds, objective)
        self.points.append(point)
        if self.watch is not None:
            self.watch(point, dose_gy if self.share == 1.0 else None)

    def spend(self, evaluations: int) -> None:
        """Adds the dose evaluations of a finished stage."""
        self.spent += evaluations * self.share


@dataclass(frozen=True)
class PlanResult:
    """Result of a planner.

    Args:
        fluence_mu: fluence map of the plan's dose, MU in one fraction; the delivered one if there is a plan.
        plan: the deliverable plan; None for a planner that ends with an ideal fluence.
        trace: course of planning.
        wanted_mu: fluence before leaf sequencing; None if nothing was sequenced.
        sequenced_mu: fluence that is delivered right after leaf sequencing; None if nothing was sequenced.
        case: the planned case, with the planner's jaws and wishes; None if it is the case that was passed.
        planner: name of the planner, as `planner()` takes it; empty without a name.
        unlikeness: how far the case is from those that the planner's network was trained on, see
            `recipes.likeness.SeenCases`; above 1 it is unlike them. None without such a network.
    """

    fluence_mu: FluenceMap
    plan: Plan | None
    trace: Trace
    wanted_mu: FluenceMap | None = None
    sequenced_mu: FluenceMap | None = None
    case: Case | None = None
    planner: str = ""
    unlikeness: float | None = None

    def __repr__(self) -> str:
        what = "an ideal fluence" if self.plan is None else repr(self.plan)
        by = f" by {self.planner}" if self.planner else ""
        of = f" of {self.case.case_id}" if self.case is not None else ""
        return f"PlanResult{of}{by}: {what}\n  {self.trace!r}"

    def _repr_html_(self) -> str:
        stages = [(name, f"{value:.1f} s") for name, value in self.trace.seconds.items()]
        return html_table(repr(self).partition("\n")[0], [*stages, ("dose evaluations", self.trace.dose_evaluations)])


@dataclass(frozen=True)
class PlannerByCase:
    """A planner that is chosen for each case.

    Args:
        choose: returns the planner of a case.
    """

    choose: Callable[[Case], Planner]

    def plan(self, case: Case) -> PlanResult:
        """Plans one case; see `Planner.plan`."""
        return self.choose(case).plan(case)


@runtime_checkable
class Planner(Protocol):
    """Makes a plan for a case."""

    def plan(self, case: Case) -> PlanResult:
        """Plans one case.

        Raises:
            ValueError: a case that cannot be planned; the message names it.
        """
        ...
