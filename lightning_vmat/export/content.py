"""The content of a plan report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from lightning_vmat import __version__
from lightning_vmat.cases.dicom.roi_report import RoiReport
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation, judged_case
from lightning_vmat.planning.planner import PlanResult


@dataclass(frozen=True)
class ComparedPlan:
    """Another plan of the same case, shown beside the reported one.

    Args:
        name: one or two words that identify no patient: `reference`, `RTPLAN`, `clinical dose`.
        evaluation: its evaluation, without violations, complexity and delivery time if only the dose is
            known.
    """

    name: str
    evaluation: Evaluation


@dataclass(frozen=True)
class ReportContent:
    """A planned case with its evaluation.

    Args:
        case: the case; of its identity only `case_id` is shown.
        result: result of the planner; its `plan` may be None.
        evaluation: evaluation of the plan.
        compared: another plan of the case; None to report one plan alone.
        rois: which ROI became which structure; None for a case that is not from DICOM.
        version: version of the package.
        created: time of planning.

    Raises:
        ValueError: a dose on another grid than the case's, or not finite.
    """

    case: Case
    result: PlanResult
    evaluation: Evaluation
    compared: ComparedPlan | None = None
    rois: RoiReport | None = None
    version: str = __version__
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        case: Case,
        result: PlanResult,
        evaluation: Evaluation,
        compared: ComparedPlan | None = None,
        rois: RoiReport | None = None,
    ) -> ReportContent:
        """The report of a planner's result, created now, with the planner's jaws and wishes."""
        return cls(judged_case(case, result), result, evaluation, compared, rois)

    def __post_init__(self) -> None:
        where = f"report of case {self.case.case_id}"
        for evaluation in (self.evaluation, *([self.compared.evaluation] if self.compared else [])):
            dose_gy = evaluation.dose_gy
            if tuple(dose_gy.shape) != self.case.grid.shape:
                raise ValueError(f"{where}: dose of shape {tuple(dose_gy.shape)}, expected {self.case.grid.shape}")
            if not bool(dose_gy.isfinite().all()):
                raise ValueError(f"{where}: dose holds NaN or infinite values, expected finite Gy")
