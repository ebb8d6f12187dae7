"""Mirror images of cases, left to right, on the grid of the fluence: they double the training cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor

from lightning_vmat.networks.arc_channels import ARC_CHANNELS
from lightning_vmat.networks.bev_conditioning import ChannelSettings
from lightning_vmat.plan.arc import DIRECTIONS, Arc
from lightning_vmat.plan.case import Case

ANGLES = ("gantry_start_deg", "gantry_stop_deg", "collimator_deg", "couch_deg")
SIDE = re.compile("Left|Right|_L$|_R$")
OTHER_SIDE = {"Left": "Right", "Right": "Left", "_L": "_R", "_R": "_L"}


@dataclass(frozen=True)
class Mirror:
    """How to make condition and fluence of a mirror image from those of the case.

    The mirror image of a patient, with the opposite collimator angles, is a case too. Its beams are the mirror images
    of the case's beams: beamlets in reverse order, and control points in the order `control_points`. Organs of the left
    side are on the right side now. Arcs stay what they are.

    Args:
        control_points: number of the control point whose mirror image each one is.
        channels: number of the channel whose mirror image each one is.
        fixed_channels: channels at the end of a condition that do not change: those of arcs.
    """

    control_points: tuple[int, ...]
    channels: tuple[int, ...]
    fixed_channels: int = 0

    @classmethod
    def of(cls, case: Case, settings: ChannelSettings) -> Mirror | None:
        """Returns the mirror of a case and its condition; None if its arcs have no mirror image among themselves."""
        points = _mirrored_points(case.arcs)
        fixed = len(ARC_CHANNELS) if settings.arcs else 0
        return None if points is None else cls(tuple(points), _mirrored_channels(settings.names), fixed)

    def maps(self, maps: Tensor) -> Tensor:
        """Returns mirrored maps (..., control_point, leaf_pair, beamlet); twice gives the maps again."""
        return maps[..., list(self.control_points), :, :].flip(-1)

    def condition(self, condition: Tensor) -> Tensor:
        """Returns the condition (channel, control_point, leaf_pair, beamlet) of the mirror image."""
        mirrored = condition[list(self.channels)]
        last = len(mirrored) - self.fixed_channels
        mirrored[:last] = self.maps(mirrored[:last])
        return mirrored


def _mirrored_points(arcs: Sequence[Arc]) -> list[int] | None:
    """Returns the control point that each one is the mirror image of, in an arc that turns the other way."""
    plain = [_in_one_turn(arc) for arc in arcs]
    images = [_mirrored_arc(arc) for arc in plain]
    (arc, image), *others = zip(plain, images, strict=True)
    if not others and (arc.gantry_start_deg, arc.gantry_stop_deg) == (image.gantry_stop_deg, image.gantry_start_deg):
        return list(reversed(range(arc.control_points)))  # the same gantry angles, in reverse order
    order = [plain.index(image) for image in images if image in plain]
    if sorted(order) != list(range(len(arcs))):
        return None
    ends = list(accumulate(arc.control_points for arc in arcs))
    return [point for number in order for point in range(ends[number] - arcs[number].control_points, ends[number])]


def _in_one_turn(arc: Arc) -> Arc:
    """Returns the arc with all angles in [0, 360)."""
    return replace(arc, **{name: getattr(arc, name) % 360.0 for name in ANGLES})


def _mirrored_arc(arc: Arc) -> Arc:
    angles = {name: -getattr(arc, name) % 360.0 for name in ANGLES}
    (direction,) = set(DIRECTIONS) - {arc.direction}
    return replace(arc, direction=direction, **angles)


def _mirrored_channels(names: Sequence[str]) -> tuple[int, ...]:
    """Returns the channel of the organ on the other side, for `LeftParotid` that of `RightParotid`, else its own."""
    others = [SIDE.sub(lambda side: OTHER_SIDE[side[0]], name) for name in names]
    return tuple(names.index(other if other in names else name) for name, other in zip(names, others, strict=True))
