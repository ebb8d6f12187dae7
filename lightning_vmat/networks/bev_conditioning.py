"""The channels that condition the networks, and those of them that show the beam's-eye view and wishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.ray_tracing import relative_electron_density, trace_rays
from lightning_vmat.networks.arc_channels import ARC_CHANNELS
from lightning_vmat.plan.case import BODY, Case
from lightning_vmat.plan.wishes import WISHES, log_wishes

LENGTH_MM = 100.0  # unit of thickness and depth
RAY_STEP_MM = 2.5


Wishes = bool | Sequence[str]
"""Which wishes a network sees: none, those of `plan.wishes.WISHES`, or the ones named."""


@dataclass(frozen=True)
class ChannelSettings:
    """What a network sees of a case.

    Args:
        structures: organs (and targets), one channel each.
        wishes: wishes, one channel each: true for those of the prostate, or their names.
        arcs: whether it sees where arcs begin and end.
        fluence_evaluations: dose evaluations behind the channel of optimised fluence, see
            `planning.condition.optimised_fluence`; 0 for no such channel.

    Raises:
        ValueError: no structures, a structure or wish that is named twice, or a negative number of evaluations.
    """

    structures: Sequence[str]
    wishes: Wishes = False
    arcs: bool = False
    fluence_evaluations: int = 0

    def __post_init__(self) -> None:
        structures, wishes = tuple(self.structures), self.wishes
        if not structures or len(set(structures)) != len(structures):
            raise ValueError(f"condition structures {list(structures)}: expected one or more names, each once")
        if not isinstance(wishes, bool):
            wishes = tuple(wishes)
            if len(set(wishes)) != len(wishes):
                raise ValueError(f"condition wishes {list(wishes)}: expected each name once")
        if self.fluence_evaluations < 0:
            raise ValueError(f"condition fluence_evaluations {self.fluence_evaluations}: expected 0 or more")
        object.__setattr__(self, "structures", structures)
        object.__setattr__(self, "wishes", wishes)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ChannelSettings:
        """Returns the settings in the `data` section of a configuration; those that it lacks are off.

        Raises:
            ValueError: a setting of the wrong type or value.
            KeyError: no structures.
        """
        structures = [str(name) for name in data["structures"]]
        wishes, arcs, evaluations = (data.get(name, off) for name, off in _OFF.items())
        if not isinstance(wishes, bool) and not (isinstance(wishes, list) and all(isinstance(n, str) for n in wishes)):
            raise ValueError(f"data.wishes is {wishes!r}, expected true, false or a list of names")
        if not isinstance(arcs, bool):
            raise ValueError(f"data.arcs is {arcs!r}, expected true or false")
        if isinstance(evaluations, bool) or not isinstance(evaluations, int):
            raise ValueError(f"data.fluence_evaluations is {evaluations!r}, expected a number")
        return cls(structures, wishes, arcs, evaluations)

    @property
    def wish_names(self) -> tuple[str, ...]:
        """The names of the wishes, in order."""
        if isinstance(self.wishes, bool):
            return WISHES if self.wishes else ()
        return tuple(self.wishes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the channels, in order."""
        fluence = ("optimised fluence",) if self.fluence_evaluations else ()
        wished = [f"wish {name}" for name in self.wish_names]
        arcs = ARC_CHANNELS if self.arcs else ()
        return ("targets by prescription", "depth to the isocentre plane", *self.structures, *fluence, *wished, *arcs)


_OFF = {"wishes": False, "arcs": False, "fluence_evaluations": 0}


def bev_channels(case: Case, structures: Sequence[str]) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns thickness of targets and structures and depth of the isocentre along each beamlet's ray.

    Where targets overlap, the highest prescription counts. Lengths are in units of 100 mm, so that the network's inputs
    are around 1. A structure that the case lacks has thickness zero.

    Args:
        case: the case.
        structures: organs (and targets), one channel each.

    Returns:
        Targets, depth, and the structures, on the grid of the fluence.
    """
    nothing = torch.zeros(case.grid.shape, device=case.hu.device)
    masks = [case.structures[name].float() if name in case.structures else nothing for name in structures]
    thickness = _trace(case, torch.stack([_relative_prescription(case), *masks]))
    density = relative_electron_density(case.hu.float()) * case.structures[BODY]
    depth = _trace(case, density[None], stop_mm=case.machine.sad_mm)
    return torch.cat((thickness[:1], depth, thickness[1:])) / LENGTH_MM


def wish_channels(case: Case, names: Sequence[str]) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    """Returns the logarithm of the factor of each wish (0: no wish), constant over the beamlets."""
    factors = torch.tensor(log_wishes(case.wishes, names), device=case.hu.device)
    return factors[:, None, None, None].expand(-1, *case.fluence_shape)


def _relative_prescription(case: Case) -> Float[Tensor, "z y x"]:
    """Returns each voxel's prescription over the highest one; zero outside the targets."""
    highest = max(case.prescription_gy.values())
    parts = [case.structures[name] * (dose_gy / highest) for name, dose_gy in case.prescription_gy.items()]
    return torch.stack(parts).amax(dim=0)


def _trace(
    case: Case, volume: Float[Tensor, "channel z y x"], stop_mm: float | None = None
) -> Float[Tensor, "channel control_point leaf_pair beamlet"]:
    return trace_rays(
        volume,
        case.grid,
        case.isocentre_mm,
        case.control_points,
        case.machine.sad_mm,
        case.beamlets.beamlet_centres_mm,
        case.beamlets.leaf_centres_mm,
        RAY_STEP_MM,
        stop_mm,
    )
