"""Compares the delivered dose of an RTPLAN with the dose of its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.start import start_plan
from lightning_vmat.export.delivered_dose import delivered_dose
from lightning_vmat.export.delivered_fluence import LEAF_STEP_MM, STEP_DEG
from lightning_vmat.export.delivery_timing import LIMITS, ArcTiming, arc_timing
from lightning_vmat.metrics.check import Check
from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import body_objective_of_dose, evaluate_dose

OBJECTIVE_FRACTION, GAMMA_FRACTION, TARGET_GY = 0.01, 0.995, 0.1
GAMMA_DOSE, GAMMA_MM = 0.01, 1.0
FARTHEST_GAMMA = 1.1  # only whether gamma exceeds 1 counts
TARGET_DOSES = ("d98_gy", "d95_gy", "d2_gy")


@dataclass(frozen=True)
class DeliveryCheck:
    """Planned and delivered figures of a plan.

    Args:
        case: name of the case.
        objective: objective of the protocol over the whole body, of the plan's dose.
        delivered_objective: the same of the delivered dose.
        gamma_1_1: fraction of voxels above a tenth of the highest dose that pass gamma 1 %/1 mm.
        targets: D98, D95 and D2 of each target, Gy, of the plan's dose.
        delivered_targets: the same of the delivered dose.
        arcs: timing of each arc.
        planned_dose: origin of the plan's dose.
    """

    case: str
    objective: float
    delivered_objective: float
    gamma_1_1: float
    targets: dict[str, dict[str, float]]
    delivered_targets: dict[str, dict[str, float]]
    arcs: tuple[ArcTiming, ...]
    planned_dose: str

    @property
    def objective_change(self) -> float:
        """Relative change of the objective: delivered over planned, minus 1."""
        change = self.delivered_objective - self.objective
        return change / max(self.objective, 1e-9)  # an objective can be met in full, and then is 0

    @property
    def target_change_gy(self) -> dict[str, float]:
        """Delivered minus planned target doses, Gy, by target and measure, such as `PTV D98`."""
        return {
            f"{name} {measure.removesuffix('_gy').upper()}": self.delivered_targets[name][measure] - dose_gy
            for name, doses in self.targets.items()
            for measure, dose_gy in doses.items()
        }

    @property
    def worst_target_gy(self) -> float:
        """Largest difference between delivered and planned target doses, Gy, with its sign."""
        return max(self.target_change_gy.values(), key=abs)

    @property
    def seconds(self) -> float:
        """Delivery time of all arcs, s."""
        return sum(arc.seconds for arc in self.arcs)

    @property
    def held_by_s(self) -> dict[str, float]:
        """Delivery time, s, during which gantry, dose rate or leaves are at their limit, by limit."""
        return {limit: sum(arc.held_by_s[limit] for arc in self.arcs) for limit in LIMITS}

    @property
    def mu(self) -> float:
        """Monitor units of all arcs."""
        return sum(arc.mu for arc in self.arcs)

    def checks(self) -> list[Check]:
        """The figures with tolerances."""
        return [
            Check(
                self.case,
                "objective, delivered over planned less one",
                self.objective_change,
                -OBJECTIVE_FRACTION,
                OBJECTIVE_FRACTION,
            ),
            Check(self.case, "gamma 1 %/1 mm pass rate", self.gamma_1_1, low=GAMMA_FRACTION),
            *(
                Check(self.case, f"{name}, delivered less planned, Gy", change_gy, -TARGET_GY, TARGET_GY)
                for name, change_gy in self.target_change_gy.items()
            ),
        ]

    @property
    def failed(self) -> list[str]:
        """The figures out of tolerance, in words."""
        return [f"{c.measure}: {c.value:.4g}, expected {c.bound}" for c in self.checks() if not c.passed]

    def as_json(self) -> dict[str, object]:
        """All figures, as JSON values."""
        return {
            **asdict(self),
            "objective_change": self.objective_change,
            "target_change_gy": self.target_change_gy,
            "delivery_s": self.seconds,
            "held_by_s": self.held_by_s,
            "mu": self.mu,
            "max_leaf_mm_per_s": max(arc.max_leaf_mm_per_s for arc in self.arcs),
            "worst_target_gy": self.worst_target_gy,
            "failed": self.failed,
            "passed": not self.failed,
        }


def check_rtplan(
    path: Path,
    case: Case,
    link: PatientLink | None,
    planned_gy: Float[Tensor, "z y x"],
    planned_dose: str,
    *,
    step_deg: float = STEP_DEG,
    leaf_step_mm: float = LEAF_STEP_MM,
) -> DeliveryCheck:
    """Compute the delivered dose of an RTPLAN, and compare it with the plan's dose.

    Args:
        path: path of the RTPLAN.
        case: case of the plan.
        link: DICOM objects of a case from DICOM, else None.
        planned_gy: planned dose of the whole course.
        planned_dose: origin of that dose, in a word or two.
        step_deg: see `delivered_dose`.
        leaf_step_mm: see `delivered_dose`.

    Raises:
        ValueError: a broken RTPLAN, or an RTPLAN that does not fit the case.
    """
    jawed, _ = start_plan(path, case, link)
    plan = read_rtplan(path, ct_position=link.patient_position if link else "")
    delivered_gy = delivered_dose(jawed, plan, step_deg=step_deg, leaf_step_mm=leaf_step_mm)
    arcs = [arc_timing(arc, case.machine) for arc in plan.beam_arcs]
    return compare(case, planned_gy, delivered_gy, arcs, planned_dose)


def compare(
    case: Case,
    planned_gy: Float[Tensor, "z y x"],
    delivered_gy: Float[Tensor, " voxel"],
    arcs: Sequence[ArcTiming],
    planned_dose: str,
) -> DeliveryCheck:
    """Compare two doses; the delivered one is on `case.body_index`."""
    planned = planned_gy.flatten()[case.body_index]
    gamma = gamma_index(
        case.body_volume(planned),
        case.body_volume(delivered_gy),
        case.grid,
        dose_fraction=GAMMA_DOSE,
        distance_mm=GAMMA_MM,
        max_gamma=FARTHEST_GAMMA,
    )
    return DeliveryCheck(
        case=case.case_id,
        objective=body_objective_of_dose(case, planned),
        delivered_objective=body_objective_of_dose(case, delivered_gy),
        gamma_1_1=gamma_pass_rate(gamma),
        targets=_target_doses(case, planned),
        delivered_targets=_target_doses(case, delivered_gy),
        arcs=tuple(arcs),
        planned_dose=planned_dose,
    )


def _target_doses(case: Case, dose_gy: Float[Tensor, " voxel"]) -> dict[str, dict[str, float]]:
    structures, _ = evaluate_dose(case, dose_gy)
    return {name: {measure: structures[name][measure] for measure in TARGET_DOSES} for name in case.target_names}
