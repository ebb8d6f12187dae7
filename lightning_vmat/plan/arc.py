"""Arcs, their control points, and the beam's axes at each control point (IEC 61217)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.plan.checks import check_kinds

DIRECTIONS = ("clockwise", "counterclockwise")


@dataclass(frozen=True)
class Arc:
    """One gantry rotation, divided into equal sectors with a control point in the middle of each.

    Args:
        gantry_start_deg: gantry angle at beam-on.
        gantry_stop_deg: gantry angle at beam-off; equal to the start for a full turn.
        control_points: number of sectors.
        direction: `clockwise` (increasing gantry angle, as seen facing the gantry) or `counterclockwise`.
        collimator_deg: collimator angle, constant over the arc.
        couch_deg: patient support angle, constant over the arc.

    Raises:
        ValueError: a value of the wrong kind, fewer than one control point, or an unknown direction.
    """

    gantry_start_deg: float = 180.0
    gantry_stop_deg: float = 180.0
    control_points: int = 90
    direction: str = "clockwise"
    collimator_deg: float = 0.0
    couch_deg: float = 0.0

    def __post_init__(self) -> None:
        check_kinds(type(self), vars(self), "arc")
        if self.control_points < 1:
            raise ValueError(f"arc with {self.control_points} control points: expected at least 1")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"arc direction {self.direction!r}: expected clockwise or counterclockwise")

    @property
    def span_deg(self) -> float:
        """Signed angle swept: in (0, 360] for a clockwise arc, in [-360, 0) for a counterclockwise one."""
        sign = 1.0 if self.direction == "clockwise" else -1.0
        swept = (sign * (self.gantry_stop_deg - self.gantry_start_deg)) % 360.0
        return sign * (swept or 360.0)

    @property
    def is_full_turn(self) -> bool:
        """Whether the arc covers 360 degrees."""
        return abs(self.span_deg) == 360.0


@dataclass(frozen=True)
class ControlPoints:
    """The control points of one or more arcs, one after the other.

    Args:
        gantry_deg: gantry angle, in [0, 360).
        collimator_deg: collimator angle.
        couch_deg: patient support angle.
        sector_deg: width of each control point's sector, positive.
        arc_index: number of the arc that each control point belongs to, from 0.
    """

    gantry_deg: Float[Tensor, " control_point"]
    collimator_deg: Float[Tensor, " control_point"]
    couch_deg: Float[Tensor, " control_point"]
    sector_deg: Float[Tensor, " control_point"]
    arc_index: Int[Tensor, " control_point"]

    @classmethod
    def from_arcs(cls, arcs: Sequence[Arc]) -> ControlPoints:
        """Returns the control points of arcs, in order of delivery.

        Raises:
            ValueError: no arcs.
        """
        if not arcs:
            raise ValueError("a plan needs at least one arc, got none")
        gantry, collimator, couch, sector, index = [], [], [], [], []
        for number, arc in enumerate(arcs):
            n = arc.control_points
            spacing = arc.span_deg / n
            gantry.append((arc.gantry_start_deg + spacing * (torch.arange(n) + 0.5)) % 360.0)
            collimator.append(torch.full((n,), float(arc.collimator_deg)))
            couch.append(torch.full((n,), float(arc.couch_deg)))
            sector.append(torch.full((n,), abs(spacing)))
            index.append(torch.full((n,), number, dtype=torch.long))
        return cls(*(torch.cat(parts) for parts in (gantry, collimator, couch, sector, index)))

    def __len__(self) -> int:
        return len(self.gantry_deg)

    def to(self, device: torch.device | str) -> ControlPoints:
        """Returns the control points on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})

    def beam_axes(self) -> Float[Tensor, "control_point 3 3"]:
        """Returns the unit vectors x_b, y_b, z_b of the beam limiting device system in patient LPS, as rows.

        z_b points from the isocentre to the source; leaves travel along x_b and are stacked along y_b.

        Reference: IEC 61217:2011, clauses 5.2-5.6; head-first supine patient.
        """
        gantry, collimator, couch = (
            torch.deg2rad(a.double()) for a in (self.gantry_deg, self.collimator_deg, self.couch_deg)
        )
        zero, one = torch.zeros_like(gantry), torch.ones_like(gantry)
        x_gantry = torch.stack((gantry.cos(), zero, -gantry.sin()), dim=-1)
        y_gantry = torch.stack((zero, one, zero), dim=-1)
        z_beam = torch.stack((gantry.sin(), zero, gantry.cos()), dim=-1)
        cos, sin = collimator.cos()[:, None], collimator.sin()[:, None]
        fixed = torch.stack((cos * x_gantry + sin * y_gantry, cos * y_gantry - sin * x_gantry, z_beam), dim=1)
        cos, sin = couch.cos()[:, None], couch.sin()[:, None]
        x, y, z = fixed.unbind(-1)  # IEC fixed -> patient support: the table turns by +couch about z
        x, y = cos * x + sin * y, cos * y - sin * x
        return torch.stack((x, -z, y), dim=-1).float()  # patient support -> LPS: x left, y = -z_iec, z = y_iec
