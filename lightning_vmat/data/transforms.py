"""MONAI transforms from a case folder to a `PlanItem`, one step each."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from monai.transforms import Compose, Transform
from torch import Tensor

from lightning_vmat import __version__
from lightning_vmat.cases.case_files import PLAN_FILE, read_case
from lightning_vmat.cases.plan_files import read_plan
from lightning_vmat.data.batch import PlanItem
from lightning_vmat.data.mirror import Mirror
from lightning_vmat.data.ray_cache import RayCache, content_checksum
from lightning_vmat.dose.ray_tracing import radiological_depth
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.objectives.protocol import protocol_checksum
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.condition import condition_channels
from lightning_vmat.planning.problem import CaseProblems, build_problem

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
    """`case` -> `condition`, see `condition_channels`.

    Args:
        channels: what the networks see.
        rays: keeps the channels on disk; None makes them each time.
    """

    def __init__(self, channels: ChannelSettings, rays: RayCache | None = None) -> None:
        self.channels, self.rays = channels, rays

    def __call__(self, record: Record) -> Record:
        case: Case = record["case"]
        make = partial(condition_channels, CaseProblems(case), self.channels)
        if self.rays is None:
            return {**record, "condition": make()}
        settings: tuple[object, ...] = ("condition_channels", self.channels.names, case.machine.sad_mm)
        if self.channels.fluence_evaluations:
            settings += (self.channels.fluence_evaluations, protocol_checksum(case.protocol))
        return {**record, "condition": self.rays.get(content_checksum(Path(record["case_dir"])), settings, make)}


class BuildProblem(Transform):
    """`case` -> `problem`, on a voxel sample of this size and seed, and its `scale_mu`.

    Problems take most of the loading time. If none is needed, and the metadata of the plan contain the scale
    for the same sample, none is built.

    Args:
        voxels: size of the voxel sample.
        seed: seed of the voxel sample.
        needed: whether the item needs its problem, and not only the scale.
        rays: keeps the radiological depths on disk; None traces them each time.
    """

    def __init__(self, voxels: int, seed: int = 0, needed: bool = True, rays: RayCache | None = None) -> None:
        self.voxels, self.seed, self.needed, self.rays = voxels, seed, needed, rays

    def __call__(self, record: Record) -> Record:
        known, same = record["metadata"], (self.voxels, self.seed, __version__)
        if not self.needed and (known.get("voxels"), known.get("seed"), known.get("package_version")) == same:
            return {**record, "problem": None, "scale_mu": known["scale_mu"]}
        depth = (
            radiological_depth if self.rays is None else partial(self._kept_depth, self.rays, Path(record["case_dir"]))
        )
        problem = build_problem(record["case"], self.voxels, self.seed, depth)
        return {**record, "problem": problem if self.needed else None, "scale_mu": problem.scale_mu}

    @staticmethod
    def _kept_depth(
        rays: RayCache, case_dir: Path, case: Case, index: Int[Tensor, " voxel"]
    ) -> Float[Tensor, "control_point voxel"]:
        voxels = hashlib.sha256(index.numpy().tobytes()).hexdigest()
        return rays.get(
            content_checksum(case_dir),
            ("radiological_depth", voxels, case.machine.sad_mm),
            lambda: radiological_depth(case, index).half(),  # the precision that the dose operator keeps
        )


class BuildTarget(Transform):
    """`plan` -> `fluence`: delivered fluence in units of `scale_mu` (None without a plan)."""

    def __call__(self, record: Record) -> Record:
        case, plan = record["case"], record["plan"]
        fluence = None
        if plan is not None:
            fluence = plan.fluence_mu(case.beam_setup) / record["scale_mu"]
        return {**record, "fluence": fluence}


class MakeItem(Transform):
    """The record -> `PlanItem`, without the CT.

    Args:
        channels: what the networks see.
    """

    def __init__(self, channels: ChannelSettings) -> None:
        self.channels = channels

    def __call__(self, record: Record) -> PlanItem:
        return PlanItem(
            case_id=record["case"].case_id,
            case_dir=Path(record["case_dir"]),
            condition=record["condition"],
            fluence=record["fluence"],
            scale_mu=record["scale_mu"],
            problem=record["problem"],
            setup=record["case"].beam_setup,
            mirror=Mirror.of(record["case"], self.channels),
        )


def item_transform(
    channels: ChannelSettings,
    voxels: int,
    with_problem: bool,
    seed: int = 0,
    rays: RayCache | None = None,
) -> Compose:
    """The whole chain: `{"case_dir": folder}` -> `PlanItem`."""
    problem = BuildProblem(voxels, seed, needed=with_problem, rays=rays)
    condition = BuildCondition(channels, rays)
    return Compose([LoadCase(), condition, problem, BuildTarget(), MakeItem(channels)])


def _plan_of(case: Case, path: Path) -> tuple[Plan, dict[str, Any]]:
    plan, metadata = read_plan(path)
    if tuple(plan.left_mm.shape) != case.fluence_shape[:2]:
        raise ValueError(
            f"{path}: leaves {tuple(plan.left_mm.shape)}, expected {case.fluence_shape[:2]} as in the case"
        )
    return plan, metadata
