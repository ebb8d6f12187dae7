"""Batches for training: a few cases with their condition and reference fluence."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.data.mirror import Mirror
from lightning_vmat.l2o.problem import Problem
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.shapes import FluenceMap


@dataclass(frozen=True)
class PlanItem:
    """One case of a batch: the fields of `PlanBatch` without the batch axis."""

    case_id: str
    case_dir: Path
    condition: Float[Tensor, "channel control_point leaf_pair beamlet"]
    fluence: FluenceMap | None
    scale_mu: float
    problem: Problem | None
    setup: BeamSetup
    mirror: Mirror | None = None


@dataclass(frozen=True)
class PlanBatch:
    """Cases with fluence maps of one shape.

    Args:
        case_ids: names of the cases.
        case_dirs: folders of the cases.
        condition: beam's-eye-view channels, see `networks.bev_conditioning`.
        fluence: delivered fluence of the reference plans in one fraction, in units of `scale_mu`; None without plans.
        scale_mu: monitor units of a fluence of 1.
        problems: planning problem of each case; empty unless requested.
        setups: beam setup of each case; empty where nothing needs them.
        mirrors: how to mirror each case; None if its arcs have no mirror image. Empty: cases cannot be mirrored.
        mirrored: whether condition and fluence of each case are mirror images; the problems never are. Empty: none is.

    Raises:
        ValueError: inconsistent lengths or shapes.
    """

    case_ids: tuple[str, ...]
    case_dirs: tuple[Path, ...]
    condition: Float[Tensor, "batch channel control_point leaf_pair beamlet"]
    fluence: Float[Tensor, "batch control_point leaf_pair beamlet"] | None
    scale_mu: Float[Tensor, " batch"]
    problems: tuple[Problem, ...] = ()
    setups: tuple[BeamSetup, ...] = ()
    mirrors: tuple[Mirror | None, ...] = ()
    mirrored: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        cases, maps = len(self.case_ids), tuple(self.condition.shape[2:])
        if self.condition.ndim != 5 or len(self.condition) != cases or cases == 0:
            raise ValueError(f"condition of shape {tuple(self.condition.shape)} for {cases} cases, expected 5 axes")
        if len(self.case_dirs) != cases or tuple(self.scale_mu.shape) != (cases,):
            raise ValueError(f"{len(self.case_dirs)} folders, scales {tuple(self.scale_mu.shape)} for {cases} cases")
        if self.fluence is not None and tuple(self.fluence.shape) != (cases, *maps):
            raise ValueError(f"fluence of shape {tuple(self.fluence.shape)}, expected {(cases, *maps)}")
        if self.problems and len(self.problems) != cases:
            raise ValueError(f"{len(self.problems)} problems for {cases} cases")

    @classmethod
    def collate(cls, items: Sequence[PlanItem]) -> PlanBatch:
        """One batch of several items; with problems and reference fluence only if all items have them.

        Raises:
            ValueError: fluence maps of different shapes.
        """
        first = items[0]
        for item in items:
            if item.condition.shape != first.condition.shape:
                raise ValueError(
                    f"cases {first.case_id} and {item.case_id} have fluence maps of shapes "
                    f"{tuple(first.condition.shape[1:])} and {tuple(item.condition.shape[1:])}: expected batch_size 1"
                )
        fluences = [item.fluence for item in items if item.fluence is not None]
        problems = tuple(item.problem for item in items if item.problem is not None)
        return cls(
            case_ids=tuple(item.case_id for item in items),
            case_dirs=tuple(item.case_dir for item in items),
            condition=torch.stack([item.condition for item in items]),
            fluence=torch.stack(fluences) if len(fluences) == len(items) else None,
            scale_mu=torch.tensor([item.scale_mu for item in items]),
            problems=problems if len(problems) == len(items) else (),
            setups=tuple(item.setup for item in items),
            mirrors=tuple(item.mirror for item in items),
        )

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def reference(self) -> Float[Tensor, "batch control_point leaf_pair beamlet"]:
        """Delivered fluence of the reference plans, in units of `scale_mu`.

        Raises:
            ValueError: cases without a reference plan.
        """
        if self.fluence is None:
            raise ValueError(f"cases {', '.join(self.case_ids)}: no reference plan, expected plan.safetensors")
        return self.fluence

    def noise(self, seed: int) -> Float[Tensor, "batch control_point leaf_pair beamlet"]:
        """Standard normal noise that depends only on the seed and the case's name, not on batch or device."""
        return unit_noise(self.case_ids, self.condition, seed)

    def required_problems(self) -> tuple[Problem, ...]:
        """Planning problems of the cases.

        Raises:
            ValueError: the data module made no problems.
        """
        if not self.problems:
            raise ValueError(
                f"cases {', '.join(self.case_ids)}: no planning problems, expected data.with_problems: true"
            )
        return self.problems

    def objective(self, x: Float[Tensor, "batch control_point leaf_pair beamlet"]) -> Float[Tensor, " batch"]:
        """Plan objective of each case's fluence, in units of `scale_mu`, on its sampled voxels; differentiable.

        Raises:
            ValueError: see `required_problems`.
        """
        values = [
            problem.value(maps) for problem, maps in zip(self.required_problems(), self._unmirrored(x), strict=True)
        ]
        return torch.stack(values)

    def mirrored_in(self, epoch: int) -> PlanBatch:
        """The batch of an epoch that mirrors each second case, and the others in the next epoch, see `Mirror`.

        Raises:
            ValueError: a case whose arcs have no mirror image.
        """
        mirrored = tuple((zlib.crc32(name.encode()) + epoch) % 2 == 1 for name in self.case_ids)
        condition, fluence = list(self.condition), None if self.fluence is None else list(self.fluence)
        for i, (case_id, mirror) in enumerate(zip(self.case_ids, self.mirrors, strict=True)):
            if mirror is None:
                raise ValueError(f"case {case_id}: its arcs have no mirror image; expected data.mirror: false")
            if mirrored[i]:
                condition[i] = mirror.condition(condition[i])
                if fluence is not None:
                    fluence[i] = mirror.maps(fluence[i])
        maps = None if fluence is None else torch.stack(fluence)
        return replace(self, condition=torch.stack(condition), fluence=maps, mirrored=mirrored)

    def _unmirrored(self, maps: Tensor) -> Tensor:
        """The maps as the problems see them: mirrored cases mirrored again."""
        if not any(self.mirrored):
            return maps
        mirrors = zip(self.mirrors, self.mirrored, maps, strict=True)
        return torch.stack([mirror.maps(one) if mirror and turned else one for mirror, turned, one in mirrors])

    def to(self, device: torch.device | str) -> PlanBatch:
        """The batch with all tensors and problems on a device."""
        return replace(
            self,
            condition=self.condition.to(device),
            fluence=None if self.fluence is None else self.fluence.to(device),
            scale_mu=self.scale_mu.to(device),
            problems=tuple(problem.to(device) for problem in self.problems),
        )


def unit_noise(
    case_ids: Sequence[str], condition: Float[Tensor, "batch channel control_point leaf_pair beamlet"], seed: int
) -> Float[Tensor, "batch control_point leaf_pair beamlet"]:
    """Standard normal noise that depends only on the seed and the case's name, not on batch or device."""
    noise = []
    for case_id in case_ids:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{case_id} {seed}".encode()))
        noise.append(torch.randn(condition.shape[2:], generator=generator))
    return torch.stack(noise).to(condition)
