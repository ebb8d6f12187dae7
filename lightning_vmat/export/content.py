"""What a plan report is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.planner import PlanResult


@dataclass(frozen=True)
class ReportContent:
    """A planned case with everything that was measured of it.

    Args:
        case: the case; of its identity only `case_id` is shown.
        dose_gy: dose of the whole course.
        result: the planner's outcome; its `plan` may be None.
        planner: name of the planner.
        goals: clinical goals with their results.
        structures: dose summary by structure name: d95_gy, d98_gy, ...
        violations: machine limits and how often each is broken; empty without a plan.
        complexity: complexity measures by name; empty without a plan.
        version: of the package.
        created: when the plan was made.

    Raises:
        ValueError: a dose that is not on the case's grid or not finite.
    """

    case: Case
    dose_gy: Float[Tensor, "z y x"]
    result: PlanResult
    planner: str
    goals: Sequence[GoalResult]
    structures: Mapping[str, Mapping[str, float]]
    violations: Mapping[str, int]
    complexity: Mapping[str, float]
    version: str
    created: datetime

    def __post_init__(self) -> None:
        where = f"report of case {self.case.case_id}"
        if tuple(self.dose_gy.shape) != self.case.grid.shape:
            raise ValueError(f"{where}: dose of shape {tuple(self.dose_gy.shape)}, expected {self.case.grid.shape}")
        if not bool(self.dose_gy.isfinite().all()):
            raise ValueError(f"{where}: dose holds NaN or infinite values, expected finite Gy")
