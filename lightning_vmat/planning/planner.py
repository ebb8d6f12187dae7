"""What every planner takes and gives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.html_table import html_table
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class TracePoint:
    """Where planning stood: operator work and wall time spent so far, and the objective reached."""

    stage: str
    dose_evaluations: int
    seconds: float
    objective: float


@dataclass
class Trace:
    """The course of one planning: points, and wall seconds by stage."""

    points: list[TracePoint] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    dose_evaluations: int = 0

    def __repr__(self) -> str:
        end = f", objective {self.points[-1].objective:.4g} on the voxel sample" if self.points else ""
        return f"{self.dose_evaluations} dose evaluations in {sum(self.seconds.values()):.1f} s{end}"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the wall time of a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def add(self, stage: str, evaluations: int, seconds: float, objective: float) -> None:
        """Note the objective after `evaluations` and `seconds` of a stage, both counted from the trace's last end."""
        before = sum(self.seconds.values())
        self.points.append(TracePoint(stage, self.dose_evaluations + evaluations, before + seconds, objective))

    def spend(self, evaluations: int) -> None:
        """Close a stage's count of dose evaluations."""
        self.dose_evaluations += evaluations


@dataclass(frozen=True)
class PlanResult:
    """A planner's outcome.

    Args:
        fluence_mu: fluence map that gives the plan's dose, MU in one fraction; the delivered one where a plan exists.
        plan: the deliverable plan; None for a planner that ends in an ideal fluence.
        trace: how it came about.
        wanted_mu: the fluence that was given to leaf sequencing; None where nothing was sequenced.
        sequenced_mu: what sequencing alone made of it.
        case: the case that was planned, with the planner's jaws and wishes; None for that which the planner was given.
        planner: name of the planner, as `planner()` takes it; empty if it has none.
    """

    fluence_mu: FluenceMap
    plan: Plan | None
    trace: Trace
    wanted_mu: FluenceMap | None = None
    sequenced_mu: FluenceMap | None = None
    case: Case | None = None
    planner: str = ""

    def __repr__(self) -> str:
        what = "an ideal fluence" if self.plan is None else repr(self.plan)
        by = f" by {self.planner}" if self.planner else ""
        of = f" of {self.case.case_id}" if self.case is not None else ""
        return f"PlanResult{of}{by}: {what}\n  {self.trace!r}"

    def _repr_html_(self) -> str:
        stages = [(name, f"{value:.1f} s") for name, value in self.trace.seconds.items()]
        return html_table(repr(self).partition("\n")[0], [*stages, ("dose evaluations", self.trace.dose_evaluations)])


@runtime_checkable
class Planner(Protocol):
    """Makes a plan for a case."""

    def plan(self, case: Case) -> PlanResult:
        """Plan one case.

        Raises:
            ValueError: a case that cannot be planned, by name.
        """
        ...


@runtime_checkable
class ApertureOptimizer(Protocol):
    """Improves leaf tips and monitor units by the objective of their delivered dose."""

    def refine(self, case: Case, problem: Problem, plan: Plan, trace: Trace, stage: str = "apertures") -> Plan:
        """Improve a plan.

        Args:
            case: gives control points, beamlets and machine.
            problem: the objective of the delivered dose.
            plan: where to start; projected to the machine's limits and scaled first.
            trace: takes the course.
            stage: name of this work in the trace.

        Returns:
            The best plan met, without a violation.
        """
        ...
