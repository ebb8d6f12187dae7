"""A plan that a session made, and a computation that makes one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.explore.cancelling import Cancelled
from lightning_vmat.explore.measured import Measured, named_figures
from lightning_vmat.explore.settings import Settings
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.evaluation import Evaluation
from lightning_vmat.planning.planner import Trace


@dataclass(frozen=True)
class MadePlan:
    """A deliverable plan with its figures.

    Args:
        number: number of the plan in the session, from 1.
        settings: settings from which it was made.
        seed: seed of the generator's noise.
        case: the case with its arcs, jaws and wishes.
        plan: leaf tips and monitor units.
        trace: course of planning.
        sample_dose_gy: dose on the voxels of the planning problem.
        measured: figures, first on a sample of voxels and later on every voxel of the body.
        violations: number of violations by machine limit.
        delivery_s: delivery time.
        evaluation: evaluation on every voxel of the body, without its dose; None until it is done.
    """

    number: int
    settings: Settings
    seed: int
    case: Case
    plan: Plan
    trace: Trace
    sample_dose_gy: Float[Tensor, " voxel"]
    measured: Measured
    violations: dict[str, int]
    delivery_s: float
    evaluation: Evaluation | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Figures by name with unit, see `named_figures`."""
        return named_figures(self.measured, float(self.plan.mu.sum()), self.delivery_s)


@dataclass
class Computation:
    """A plan in the making.

    Args:
        number: number of the computation, from 1.
        settings: settings of the plan.
        seed: seed of the generator's noise.
        scratch: whether to plan from scratch, and not from the current plan.
        evaluations: dose evaluations that are expected.
    """

    number: int
    settings: Settings
    seed: int
    scratch: bool
    evaluations: int
    stage: str = "waiting"
    points: list[tuple[int, float, float]] = field(default_factory=list)
    preview: tuple[FluenceMap, Measured] | None = None
    preview_gy: Float[Tensor, "z y x"] | None = None
    course: Measured | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Ends the computation at its next dose evaluation."""
        self._cancelled.set()

    def check(self) -> None:
        """Raises `Cancelled` after `cancel`."""
        if self._cancelled.is_set():
            raise Cancelled(f"computation {self.number} was cancelled")

    def enter(self, stage: str) -> None:
        """Names what is computed next; raises `Cancelled` after `cancel`."""
        self.check()
        self.stage = stage

    def as_json(self) -> dict[str, Any]:
        """Number, stage and course so far: dose evaluations, seconds and objective of each point."""
        return {
            "number": self.number,
            "stage": self.stage,
            "points": self.points,
            "evaluations": self.evaluations,
            "preview": self.preview is not None,
            "course": len(self.points) if self.course is not None else 0,
        }
