"""Delivery time of the arcs of an RTPLAN, and the limits that determine it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from lightning_vmat.cases.dicom.beam_arc import BeamArc
from lightning_vmat.cases.dicom.beam_motion import Numbers
from lightning_vmat.plan.delivery_time import least_seconds
from lightning_vmat.plan.machine import Machine

LIMITS = ("gantry", "dose_rate", "leaves")
SAME = 1e-4  # relative tolerance of times: positions and monitor units in files are rounded


@dataclass(frozen=True)
class ArcTiming:
    """Timing of one arc at the highest speeds that the machine allows.

    Args:
        seconds: total time, s.
        held_by_s: time, s, during which gantry, dose rate or leaves are at their limit, by limit.
        mu: monitor units of one fraction.
        max_leaf_mm_per_s: speed of the fastest leaf, without leaves behind jaws.
        max_dose_rate_mu_per_s: highest dose rate.
    """

    seconds: float
    held_by_s: dict[str, float]
    mu: float
    max_leaf_mm_per_s: float
    max_dose_rate_mu_per_s: float


def arc_timing(arc: BeamArc, machine: Machine) -> ArcTiming:
    """Timing of an arc. Between control points the slowest of gantry, dose rate and leaves determines the time."""
    moved_mm, given_mu = torch.from_numpy(_farthest_mm(arc)), torch.from_numpy(np.diff(arc.given_mu))
    by_limit = least_seconds(torch.from_numpy(np.diff(arc.travelled_deg)), given_mu, moved_mm, machine)
    seconds = by_limit.amax(dim=0)
    holding = (by_limit > (1 - SAME) * seconds).int().argmax(dim=0)  # the first of equal limits
    moving = seconds > 0
    return ArcTiming(
        seconds=float(seconds.sum()),
        held_by_s={name: float(seconds[holding == number].sum()) for number, name in enumerate(LIMITS)},
        mu=float(arc.given_mu[-1]),
        max_leaf_mm_per_s=float((moved_mm[moving] / seconds[moving]).max()),
        max_dose_rate_mu_per_s=float((given_mu[moving] / seconds[moving]).max()),
    )


def _farthest_mm(arc: BeamArc) -> Numbers:
    """Largest leaf travel from each control point to the next, mm, outside the jaws."""
    edges = np.array(arc.leaf_edges_mm)
    middles = (edges[1:] + edges[:-1]) / 2
    x_jaws, y_jaws = arc.jaws_mm[:, 0], arc.jaws_mm[:, 1]
    seen = (middles > y_jaws[:, :1]) & (middles < y_jaws[:, 1:])
    banks = [np.clip(bank, x_jaws[:, :1], x_jaws[:, 1:]) for bank in (arc.left_mm, arc.right_mm)]
    moved = np.stack([np.abs(np.diff(bank, axis=0)) for bank in banks]) * (seen[1:] | seen[:-1])
    farthest: Numbers = moved.max(axis=(0, 2))
    return farthest
