"""A written RTPLAN against the dose that was promised with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.data.dicom.link import PatientLink
from lightning_vmat.data.dicom.rtplan import RtPlan, read_rtplan
from lightning_vmat.data.dicom.start import start_plan
from lightning_vmat.export.delivered_dose import delivered_dose
from lightning_vmat.export.delivered_fluence import LEAF_STEP_MM, STEP_DEG
from lightning_vmat.export.delivery_timing import LIMITS, ArcTiming, arc_timing
from lightning_vmat.metrics.dose_accuracy.check import Check
from lightning_vmat.metrics.gamma import gamma_index, gamma_pass_rate
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import body_objective_of_dose, evaluate_dose

OBJECTIVE_FRACTION, GAMMA_FRACTION, TARGET_GY = 0.01, 0.995, 0.1
GAMMA_DOSE, GAMMA_MM = 0.01, 1.0
TARGET_DOSES = ("d98_gy", "d95_gy", "d2_gy")


@dataclass(frozen=True)
class DeliveryCheck:
    """What a plan promises and what its RTPLAN delivers.

    Args:
        case: name of the case.
        objective: the protocol's objective over the whole body, of the plan's dose.
        delivered_objective: of the delivered dose.
        gamma_1_1: fraction of voxels above a tenth of the highest dose where both agree within 1 % and 1 mm.
        targets: D98, D95 and D2 of each target, of the plan's dose.
        delivered_targets: of the delivered dose.
        arcs: delivery of each arc.
    """

    case: str
    objective: float
    delivered_objective: float
    gamma_1_1: float
    targets: dict[str, dict[str, float]]
    delivered_targets: dict[str, dict[str, float]]
    arcs: tuple[ArcTiming, ...]

    @property
    def objective_change(self) -> float:
        """Delivered objective over that of the plan, less one."""
        change = self.delivered_objective - self.objective
        return change / max(self.objective, 1e-9)  # an objective can be met in full, and then is 0

    @property
    def target_change_gy(self) -> dict[str, float]:
        """Delivered less planned, by target and measure: `PTV D98`."""
        return {
            f"{name} {measure.removesuffix('_gy').upper()}": self.delivered_targets[name][measure] - dose_gy
            for name, doses in self.targets.items()
            for measure, dose_gy in doses.items()
        }

    @property
    def worst_target_gy(self) -> float:
        """Largest of all differences between delivered and planned target doses, with its sign."""
        return max(self.target_change_gy.values(), key=abs)

    @property
    def seconds(self) -> float:
        return sum(arc.seconds for arc in self.arcs)

    @property
    def held_by_s(self) -> dict[str, float]:
        """Delivery time in which gantry, dose rate or leaves were at their limit."""
        return {limit: sum(arc.held_by_s[limit] for arc in self.arcs) for limit in LIMITS}

    @property
    def mu(self) -> float:
        return sum(arc.mu for arc in self.arcs)

    def checks(self) -> list[Check]:
        """The figures that have tolerances."""
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

    def as_json(self) -> dict[str, object]:
        """All figures for a file."""
        return {
            **asdict(self),
            "objective_change": self.objective_change,
            "target_change_gy": self.target_change_gy,
            "delivery_s": self.seconds,
            "held_by_s": self.held_by_s,
            "mu": self.mu,
            "passed": all(check.passed for check in self.checks()),
        }


def check_rtplan(
    path: Path,
    case: Case,
    link: PatientLink | None,
    planned_gy: Float[Tensor, "z y x"],
    *,
    step_deg: float = STEP_DEG,
    leaf_step_mm: float = LEAF_STEP_MM,
) -> DeliveryCheck:
    """Compute what an RTPLAN delivers, and compare it with the plan's dose.

    Args:
        path: of the RTPLAN.
        case: the case that it was made for.
        link: of a case that came from DICOM.
        planned_gy: dose of the whole course as the planner computed it.
        step_deg: see `delivered_dose`.
        leaf_step_mm: see `delivered_dose`.

    Raises:
        ValueError: a broken RTPLAN, or one that does not fit the case.
    """
    jawed, _ = start_plan(path, case, link)
    plan = read_rtplan(path)
    if plan.fractions != case.fractions:
        raise ValueError(f"{path}: {plan.fractions} fractions, expected {case.fractions} as case {case.case_id} has")
    delivered_gy = delivered_dose(jawed, plan, step_deg=step_deg, leaf_step_mm=leaf_step_mm)
    return compare(case, planned_gy, delivered_gy, timings(plan, case))


def timings(plan: RtPlan, case: Case) -> tuple[ArcTiming, ...]:
    """Delivery of each arc of an RTPLAN on the case's machine."""
    return tuple(arc_timing(path, case.machine) for path in plan.paths)


def compare(
    case: Case,
    planned_gy: Float[Tensor, "z y x"],
    delivered_gy: Float[Tensor, " voxel"],
    arcs: Sequence[ArcTiming],
) -> DeliveryCheck:
    """The figures of two doses; the delivered one is on `case.body_index`."""
    planned = planned_gy.flatten()[case.body_index]
    volumes = []
    for dose_gy in (planned, delivered_gy):  # outside the body no dose is judged
        volume = torch.zeros(case.grid.voxel_count)
        volume[case.body_index] = dose_gy
        volumes.append(volume.reshape(case.grid.shape))
    gamma = gamma_index(*volumes, case.grid, dose_fraction=GAMMA_DOSE, distance_mm=GAMMA_MM, max_gamma=1.1)
    return DeliveryCheck(
        case=case.case_id,
        objective=body_objective_of_dose(case, planned),
        delivered_objective=body_objective_of_dose(case, delivered_gy),
        gamma_1_1=gamma_pass_rate(gamma),
        targets=_target_doses(case, planned),
        delivered_targets=_target_doses(case, delivered_gy),
        arcs=tuple(arcs),
    )


def _target_doses(case: Case, dose_gy: Float[Tensor, " voxel"]) -> dict[str, dict[str, float]]:
    structures, _ = evaluate_dose(case, dose_gy)
    return {name: {measure: structures[name][measure] for measure in TARGET_DOSES} for name in case.target_names}
