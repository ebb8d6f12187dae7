"""The whole objective of a plan: the weighted sum of a protocol's objectives over the structures of a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.objectives.base import DoseObjective, StructureVoxels
from lightning_vmat.objectives.protocol import Protocol, ProtocolObjective
from lightning_vmat.objectives.structures import sampled_structures
from lightning_vmat.objectives.wishes import check_known, wished_weight
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import VoxelSample


@dataclass(frozen=True)
class Term:
    """One weighted objective with the voxels on which it is computed."""

    name: str
    weight: float
    objective: DoseObjective
    voxels: StructureVoxels

    def to(self, device: torch.device | str) -> Term:
        """Returns the term on a device."""
        return replace(self, objective=self.objective.to(device), voxels=self.voxels.to(device))


@dataclass(frozen=True)
class PlanObjective:
    """Weighted sum of dose objectives, to be minimised: a function of the dose on the voxels of one sample.

    Args:
        members: the objectives with their voxels.
        gather: the members' voxel indices, concatenated, so that dose is gathered and its gradient scattered once.
        structures: sampled voxels of every structure of the case, for dose-volume histograms.
        protocol: the protocol with the objectives and goals.
        prescription_gy: prescription of the case by target.
    """

    members: tuple[Term, ...]
    gather: Int[Tensor, " gathered"]
    structures: dict[str, StructureVoxels]
    protocol: Protocol
    prescription_gy: dict[str, float]

    @classmethod
    def from_case(cls, case: Case, sample: VoxelSample, protocol: Protocol) -> PlanObjective:
        """Binds a protocol to the voxels of a case.

        Args:
            case: the case; its prescription scales limits that are fractions, its wishes scale weights.
            sample: voxels of the dose.
            protocol: the protocol with the objectives.

        Raises:
            ValueError: a structure that the protocol needs and the case lacks, or a wish that concerns no objective.
        """
        structures = sampled_structures(case, sample)
        check_known(case.wishes, protocol, f"case {case.case_id}")
        members = []
        for line in protocol.objectives:
            if line.structure not in structures and not line.optional:
                raise ValueError(
                    f"protocol {protocol.name}: objective {line.name} needs structure {line.structure!r}, which case "
                    f"{case.case_id} lacks; it has {sorted(structures)}"
                )
            voxels = _voxels_of(line, structures, case)
            if voxels is not None:
                weight = wished_weight(line, protocol, case.wishes)
                objective = line.for_prescription(case.prescription_gy).for_voxels(voxels)
                members.append(Term(line.name, weight, objective, voxels))
        gather = torch.cat([member.voxels.index for member in members])
        return cls(tuple(members), gather, structures, protocol, dict(case.prescription_gy))

    def with_wishes(self, wishes: Mapping[str, float], where: str) -> PlanObjective:
        """Returns the objective with other wishes; only weights change, so this costs nothing.

        Args:
            wishes: all wishes; they replace those of the case.
            where: start of an error message.

        Raises:
            ValueError: a wish that concerns no objective of the protocol.
        """
        check_known(wishes, self.protocol, where)
        lines = {line.name: line for line in self.protocol.objectives}
        members = tuple(
            replace(member, weight=wished_weight(lines[member.name], self.protocol, wishes)) for member in self.members
        )
        return replace(self, members=members)

    def __call__(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch"]:
        """Returns the objective; differentiable."""
        return torch.stack(list(self.terms(dose_gy).values())).sum(dim=0)

    def terms(self, dose_gy: Float[Tensor, "*batch voxel"]) -> dict[str, Float[Tensor, "*batch"]]:
        """Returns each weighted objective by name; their sum is the whole objective."""
        return {m.name: m.weight * m.objective(part, m.voxels) for m, part in self._parts(dose_gy)}

    def value_and_gradient(
        self, dose_gy: Float[Tensor, "*batch voxel"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch voxel"]]:
        """Returns the objective and its derivative by dose, both detached, from one pass."""
        with torch.enable_grad():
            dose_gy = dose_gy.detach().requires_grad_()
            value = self(dose_gy)
            (gradient,) = torch.autograd.grad(value.sum(), dose_gy)
        return value.detach(), gradient

    def gradient(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Float[Tensor, "*batch voxel"]:
        """Returns the derivative of the objective by dose, detached."""
        return self.value_and_gradient(dose_gy)[1]

    def to(self, device: torch.device | str) -> PlanObjective:
        """Returns the objective on a device."""
        return replace(
            self,
            members=tuple(member.to(device) for member in self.members),
            gather=self.gather.to(device),
            structures={name: voxels.to(device) for name, voxels in self.structures.items()},
        )

    def _parts(self, dose_gy: Float[Tensor, "*batch voxel"]) -> Iterator[tuple[Term, Float[Tensor, "*batch part"]]]:
        lengths = [len(member.voxels) for member in self.members]
        parts = torch.split(dose_gy.index_select(-1, self.gather), lengths, dim=-1)
        return zip(self.members, parts, strict=True)


def _voxels_of(
    line: ProtocolObjective,
    structures: dict[str, StructureVoxels],
    case: Case,
) -> StructureVoxels | None:
    """Returns the voxels of an objective; None if the structure is absent or lies wholly in the excluded part."""
    voxels = structures.get(line.structure)
    rows = [row for row, name in enumerate(case.target_names) if name in line.outside]
    if voxels is None or not rows:
        return voxels
    voxels = voxels[(voxels.target_distance_mm[rows] > line.margin_mm).all(dim=0)]
    return voxels if len(voxels) else None
