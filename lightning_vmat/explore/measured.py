"""Figures of a plan: estimated on the voxels of the planning problem, or measured on every voxel of the body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.export.figures.dvh import BINS
from lightning_vmat.metrics.conformity import homogeneity_index
from lightning_vmat.metrics.dvh import Dvh
from lightning_vmat.metrics.plan_report import structure_dvhs
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.objectives.goals import evaluate_goals
from lightning_vmat.objectives.plan_objective import PlanObjective
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.evaluation import Evaluation

TOP = 1.15  # end of the dose axis, of the highest prescription
DOSES = {"mean_gy": "mean", "max_gy": "max", "d2_gy": "D2", "d50_gy": "D50", "d95_gy": "D95", "d98_gy": "D98"}


@dataclass(frozen=True)
class Measured:
    """Figures of a dose.

    Args:
        objective: the protocol's objective with the plan's wishes.
        structures: dose summary by structure, Gy.
        goals: clinical goals.
        curves: dose-volume histogram by structure: volume fraction at the doses of `dose_axis_gy`.
        exact: whether every voxel of the body was judged, and not a sample.
    """

    objective: float
    structures: dict[str, dict[str, float]]
    goals: list[GoalResult]
    curves: dict[str, NDArray[np.float64]]
    exact: bool


def dose_axis_gy(case: Case) -> NDArray[np.float64]:
    """Returns the doses at which histograms of a case are computed."""
    return np.linspace(0.0, TOP * max(case.prescription_gy.values()), BINS + 1)


def sample_dvhs(objective: PlanObjective, dose_gy: Float[Tensor, " voxel"]) -> dict[str, Dvh]:
    """Returns the dose-volume histogram of each structure, estimated on the voxels of a sample."""
    return {name: Dvh(dose_gy[one.index], one.volume_cc) for name, one in objective.structures.items()}


def estimated(case: Case, objective: PlanObjective, dose_gy: Float[Tensor, " voxel"]) -> Measured:
    """Returns the figures of a dose on the voxels of a sample, without a dose calculation."""
    dvhs = sample_dvhs(objective, dose_gy)
    structures = {name: dvh.summary() for name, dvh in dvhs.items()}
    for name in case.target_names:
        structures[name]["hi"] = homogeneity_index(dvhs[name])
    goals = evaluate_goals(dvhs, objective.protocol, case.prescription_gy)
    return Measured(float(objective(dose_gy)), structures, goals, _curves(case, dvhs), exact=False)


def exact(case: Case, evaluation: Evaluation) -> Measured:
    """Returns the figures of an evaluation on every voxel of the body."""
    dvhs = structure_dvhs(case, evaluation.dose_gy.flatten()[case.body_index])
    return Measured(evaluation.objective, evaluation.structures, evaluation.goals, _curves(case, dvhs), exact=True)


def named_figures(measured: Measured, mu: float, delivery_s: float) -> dict[str, float]:
    """Returns the figures of a plan that a trade-off plot can show, by name with unit."""
    figures = {
        f"{name} {label} (Gy)": summary[key]
        for name, summary in measured.structures.items()
        for key, label in DOSES.items()
        if key in summary
    }
    figures |= {f"{name} homogeneity index": one["hi"] for name, one in measured.structures.items() if "hi" in one}
    for goal in measured.goals:
        if goal.measure.startswith("V"):
            figures[f"{goal.structure} V{goal.measure[1:-2]} Gy (%)"] = 100 * goal.value
    return {**figures, "MU": mu, "Delivery (s)": delivery_s, "Objective": measured.objective}


def _curves(case: Case, dvhs: Mapping[str, Dvh]) -> dict[str, NDArray[np.float64]]:
    edges = torch.from_numpy(dose_axis_gy(case))
    return {name: dvh.curve(edges).numpy() for name, dvh in dvhs.items()}
