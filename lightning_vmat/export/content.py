"""What a plan report is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jaxtyping import Float
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.cases.dicom.roi_report import RoiReport
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation, judged_case
from lightning_vmat.planning.planner import PlanResult


@dataclass(frozen=True)
class ComparedPlan:
    """Another plan of the same case, to stand beside the reported one.

    Args:
        name: in a word or two, without anyone's identity: `reference`, `RTPLAN`, `clinical dose`.
        dose_gy: dose of the whole course on the case's grid.
        goals: the same clinical goals with its results.
        structures: dose summary by structure name.
        objective: over the whole body.
        violations: machine limits and how often each is broken; empty where only the dose is known.
        complexity: complexity measures by name; empty where only the dose is known.
        delivery_s: shortest time with beam, one fraction; None where it is not known.
    """

    name: str
    dose_gy: Float[Tensor, "z y x"]
    goals: Sequence[GoalResult]
    structures: Mapping[str, Mapping[str, float]]
    objective: float
    violations: Mapping[str, int] = field(default_factory=dict)
    complexity: Mapping[str, float] = field(default_factory=dict)
    delivery_s: float | None = None


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
        objective: over the whole body; None if it was not measured.
        delivery_s: shortest time with beam, one fraction; None without a plan.
        compared: another plan of the case; None to report one plan alone.
        rois: what became of the ROIs of the patient's structure set; None for a case that was not DICOM.

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
    objective: float | None = None
    delivery_s: float | None = None
    compared: ComparedPlan | None = None
    rois: RoiReport | None = None

    @classmethod
    def of(
        cls,
        case: Case,
        result: PlanResult,
        evaluation: Evaluation,
        compared: ComparedPlan | None = None,
        rois: RoiReport | None = None,
    ) -> ReportContent:
        """The report of a planner's outcome, made now.

        Args:
            case: the patient; jaws and wishes are those of the planner.
            result: the outcome.
            evaluation: what was measured of it.
            compared: another plan of the case.
            rois: what became of the ROIs of the structure set.
        """
        return cls(
            case=judged_case(case, result),
            dose_gy=evaluation.dose_gy,
            result=result,
            planner=result.planner,
            goals=evaluation.goals,
            structures=evaluation.structures,
            violations=evaluation.violations,
            complexity=evaluation.complexity,
            version=__version__,
            created=datetime.now(UTC),
            objective=evaluation.objective,
            delivery_s=evaluation.delivery_s,
            compared=compared,
            rois=rois,
        )

    def __post_init__(self) -> None:
        where = f"report of case {self.case.case_id}"
        for dose_gy in (self.dose_gy, *([self.compared.dose_gy] if self.compared else [])):
            if tuple(dose_gy.shape) != self.case.grid.shape:
                raise ValueError(f"{where}: dose of shape {tuple(dose_gy.shape)}, expected {self.case.grid.shape}")
            if not bool(dose_gy.isfinite().all()):
                raise ValueError(f"{where}: dose holds NaN or infinite values, expected finite Gy")
