"""MONAI transforms from a case folder to a `PlanItem`, one step each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose, Transform

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import PLAN_FILE, read_case
from lightning_vmat.cases.plan_files import read_plan
from lightning_vmat.data.batch import PlanItem
from lightning_vmat.networks.bev_conditioning import bev_channels
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.problem import build_problem

Record = dict[str, Any]  # case_dir: Path, then what the transforms add


class LoadCase(Transform):
    """`case_dir` -> `case`, and `plan` with its `metadata` if the folder contains one (else None, and no metadata)."""

    def __call__(self, record: Record) -> Record:
        folder = Path(record["case_dir"])
        case = read_case(folder)
        path = folder / PLAN_FILE
        plan, metadata = _plan_of(case, path) if path.is_file() else (None, {})
        return {**record, "case": case, "plan": plan, "metadata": metadata}


class BuildCondition(Transform):
    """`case` -> `condition`: beam's-eye-view channels of the structures, and of the wishes if requested."""

    def __init__(self, structures: Sequence[str], wishes: bool = False) -> None:
        self.structures, self.wishes = tuple(structures), wishes

    def __call__(self, record: Record) -> Record:
        return {**record, "condition": bev_channels(record["case"], self.structures, self.wishes)}


class BuildProblem(Transform):
    """`case` -> `problem`, on a voxel sample of this size and seed, and its `scale_mu`.

    Problems take most of the loading time. If none is needed, and the metadata of the plan contain the scale
    for the same sample, none is built.
    """

    def __init__(self, voxels: int, seed: int = 0, needed: bool = True) -> None:
        self.voxels, self.seed, self.needed = voxels, seed, needed

    def __call__(self, record: Record) -> Record:
        known, same = record["metadata"], (self.voxels, self.seed, __version__)
        if not self.needed and (known.get("voxels"), known.get("seed"), known.get("package_version")) == same:
            return {**record, "problem": None, "scale_mu": known["scale_mu"]}
        problem = build_problem(record["case"], self.voxels, self.seed)
        return {**record, "problem": problem if self.needed else None, "scale_mu": problem.scale_mu}


class BuildTarget(Transform):
    """`plan` -> `fluence`: delivered fluence in units of `scale_mu` (None without a plan)."""

    def __call__(self, record: Record) -> Record:
        case, plan = record["case"], record["plan"]
        fluence = None
        if plan is not None:
            fluence = plan.fluence_mu(case.beam_setup) / record["scale_mu"]
        return {**record, "fluence": fluence}


class MakeItem(Transform):
    """The record -> `PlanItem`, without the CT."""

    def __call__(self, record: Record) -> PlanItem:
        return PlanItem(
            case_id=record["case"].case_id,
            case_dir=Path(record["case_dir"]),
            condition=record["condition"],
            fluence=record["fluence"],
            scale_mu=record["scale_mu"],
            problem=record["problem"],
        )


def item_transform(
    structures: Sequence[str], voxels: int, with_problem: bool, seed: int = 0, wishes: bool = False
) -> Compose:
    """The whole chain: `{"case_dir": folder}` -> `PlanItem`."""
    problem = BuildProblem(voxels, seed, needed=with_problem)
    return Compose([LoadCase(), BuildCondition(structures, wishes), problem, BuildTarget(), MakeItem()])


def _plan_of(case: Case, path: Path) -> tuple[Plan, dict[str, Any]]:
    plan, metadata = read_plan(path)
    if tuple(plan.left_mm.shape) != case.fluence_shape[:2]:
        raise ValueError(
            f"{path}: leaves {tuple(plan.left_mm.shape)}, expected {case.fluence_shape[:2]} as in the case"
        )
    return plan, metadata
