"""MONAI transforms from a case folder to a `PlanItem`, one step each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose, Transform

from lightning_vmat.data.batch import PlanItem
from lightning_vmat.data.case_files import PLAN_FILE, read_case
from lightning_vmat.data.plan_files import read_plan
from lightning_vmat.networks.bev_conditioning import bev_channels
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.problem import build_problem

Record = dict[str, Any]  # case_dir: Path, then what the transforms add


class LoadCase(Transform):
    """`case_dir` -> `case`, and `plan` where the folder holds one (else None)."""

    def __call__(self, record: Record) -> Record:
        folder = Path(record["case_dir"])
        case = read_case(folder)
        path = folder / PLAN_FILE
        return {**record, "case": case, "plan": _plan_of(case, path) if path.is_file() else None}


class BuildCondition(Transform):
    """`case` -> `condition`: beam's-eye-view channels of these structures."""

    def __init__(self, structures: Sequence[str]) -> None:
        self.structures = tuple(structures)

    def __call__(self, record: Record) -> Record:
        return {**record, "condition": bev_channels(record["case"], self.structures)}


class BuildProblem(Transform):
    """`case` -> `problem`, on a sample of so many voxels drawn with this seed."""

    def __init__(self, voxels: int, seed: int = 0) -> None:
        self.voxels, self.seed = voxels, seed

    def __call__(self, record: Record) -> Record:
        return {**record, "problem": build_problem(record["case"], self.voxels, self.seed)}


class BuildTarget(Transform):
    """`plan` -> `fluence`: what the plan delivers, in the problem's unit (None without a plan)."""

    def __call__(self, record: Record) -> Record:
        case, plan = record["case"], record["plan"]
        fluence = None
        if plan is not None:
            fluence = plan.fluence_mu(case.beamlets, case.machine) / record["problem"].scale_mu
        return {**record, "fluence": fluence}


class MakeItem(Transform):
    """Everything so far -> `PlanItem`, with or without the problem; the CT is let go."""

    def __init__(self, with_problem: bool) -> None:
        self.with_problem = with_problem

    def __call__(self, record: Record) -> PlanItem:
        problem = record["problem"]
        return PlanItem(
            case_id=record["case"].case_id,
            case_dir=Path(record["case_dir"]),
            condition=record["condition"],
            fluence=record["fluence"],
            scale_mu=problem.scale_mu,
            problem=problem if self.with_problem else None,
        )


def item_transform(structures: Sequence[str], voxels: int, with_problem: bool, seed: int = 0) -> Compose:
    """All of them: `{"case_dir": folder}` -> `PlanItem`."""
    steps = [LoadCase(), BuildCondition(structures), BuildProblem(voxels, seed), BuildTarget(), MakeItem(with_problem)]
    return Compose(steps)


def _plan_of(case: Case, path: Path) -> Plan:
    plan, _ = read_plan(path)
    if tuple(plan.left_mm.shape) != case.fluence_shape[:2]:
        raise ValueError(
            f"{path}: leaves {tuple(plan.left_mm.shape)}, expected {case.fluence_shape[:2]} as in the case"
        )
    return plan
