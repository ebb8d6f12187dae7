"""The delivered fluence of an RTPLAN's arcs with gantry and leaves in motion, from its control points alone.

This is independent of the planners' model of moving leaves: the path between two control points is cut into short
pieces, and each piece counts with the leaf positions in its middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.cases.dicom.beam_arc import BeamArc
from lightning_vmat.cases.dicom.beam_motion import Numbers
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.machine import Machine

STEP_DEG, LEAF_STEP_MM = 0.5, 1.0
SMALL = 1e-9


@dataclass(frozen=True)
class Pieces:
    """The delivery of an arc in short pieces, and their sub-sectors of the arc.

    Args:
        sub_sectors: number of equal parts of the arc.
        sub_sector: sub-sector of each piece `[piece]`.
        interval: index of the control point before each piece `[piece]`.
        place: middle of each piece as a fraction of the path to the next control point `[piece]`.
        mu: monitor units of each piece `[piece]`.
    """

    sub_sectors: int
    sub_sector: NDArray[np.int64]
    interval: NDArray[np.int64]
    place: Numbers
    mu: Numbers


def cut_into_pieces(arc: BeamArc, step_deg: float = STEP_DEG, leaf_step_mm: float = LEAF_STEP_MM) -> Pieces:
    """Cut an arc so that each piece lies in one sub-sector and leaves move little within it.

    Args:
        arc: control points of the arc.
        step_deg: largest sub-sector.
        leaf_step_mm: largest leaf travel within a piece.
    """
    sub_sectors = math.ceil(arc.travelled_deg[-1] / step_deg - 1e-6)
    width_deg = arc.travelled_deg[-1] / sub_sectors
    tips = np.concatenate((arc.left_mm, arc.right_mm), axis=1)
    moved_mm = np.abs(np.diff(tips, axis=0)).max(axis=1)
    parts: list[Numbers] = []
    for number, given_mu in enumerate(np.diff(arc.given_mu)):
        if given_mu <= 0:
            continue
        ends = _cuts(arc.travelled_deg[number] / width_deg, arc.travelled_deg[number + 1] / width_deg)
        counts = np.maximum(1, np.ceil(moved_mm[number] * np.diff(ends) / leaf_step_mm - SMALL)).astype(int)
        fine = np.concatenate([np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(ends, ends[1:], counts, strict=False)])
        fine = np.append(fine, 1.0)
        parts.append(np.stack((np.full(len(fine) - 1, number), (fine[1:] + fine[:-1]) / 2, np.diff(fine) * given_mu)))
    interval, place, mu = np.concatenate(parts, axis=1)
    before = interval.astype(np.int64)
    middle_deg = arc.travelled_deg[before] + place * np.diff(arc.travelled_deg)[before]
    sub_sector = np.clip(np.floor(middle_deg / width_deg).astype(np.int64), 0, sub_sectors - 1)
    return Pieces(sub_sectors, sub_sector, before, place, mu)


def _cuts(low: float, high: float) -> Numbers:
    """0, 1, and the whole numbers between two values as fractions of the distance between them."""
    inner = np.arange(math.floor(low + SMALL) + 1, math.ceil(high - SMALL))
    return np.concatenate(([0.0], (inner - low) / max(high - low, SMALL), [1.0]))


def delivered_fluence(
    arc: BeamArc, pieces: Pieces, part: range, beamlets: BeamletGrid, machine: Machine
) -> Float[Tensor, "sub_sector leaf_pair beamlet"]:
    """Fluence of a range of an arc's sub-sectors, MU of one fraction.

    Open beamlets count in full, those under leaves with the leaf transmission, those under a jaw not at all; the
    dosimetric leaf gap opens each leaf pair further. A row takes the mean over its leaf pairs.

    Args:
        arc: control points of the arc.
        pieces: pieces of the arc.
        part: indices of the sub-sectors.
        beamlets: rows and beamlets.
        machine: gives leaf transmission and dosimetric leaf gap.
    """
    mine = np.flatnonzero((pieces.sub_sector >= part.start) & (pieces.sub_sector < part.stop))
    left, right, jaws = (_at(bank, pieces, mine) for bank in (arc.left_mm, arc.right_mm, arc.jaws_mm))
    (x1, x2), (y1, y2) = np.moveaxis(jaws, 0, -1)
    columns, rows = beamlets.beamlet_edges_mm.double().numpy(), np.array(beamlets.leaf_edges_mm)
    half_gap = machine.dosimetric_leaf_gap_mm / 2
    between = _shares(
        np.maximum(left - half_gap, x1[:, None]), np.minimum(right + half_gap, x2[:, None]), columns
    )  # [piece, pair, beamlet]
    seen = _shares(x1, x2, columns)[:, None]
    transmission = machine.leaf_transmission
    open_fraction = transmission * seen + (1 - transmission) * between
    edges = np.clip(np.array(arc.leaf_edges_mm), y1[:, None], y2[:, None])
    of_row = _shares(edges[:, :-1], edges[:, 1:], rows)  # [piece, pair, row]
    maps = np.einsum("p,plr,plk->prk", pieces.mu[mine], of_row, open_fraction, optimize=True)
    fluence = torch.zeros(len(part), *beamlets.shape, dtype=torch.float64)
    fluence.index_add_(0, torch.from_numpy(pieces.sub_sector[mine] - part.start), torch.from_numpy(maps))
    return fluence.float()


def _at(values: Numbers, pieces: Pieces, mine: NDArray[np.int64]) -> Numbers:
    """Positions in the middle of the pieces, interpolated linearly between control points."""
    before = pieces.interval[mine]
    place = pieces.place[mine].reshape(-1, *[1] * (values.ndim - 1))
    moved: Numbers = (1 - place) * values[before] + place * values[before + 1]
    return moved


def _shares(low: Numbers, high: Numbers, edges: Numbers) -> Numbers:
    """Fraction of each cell between edges that lies from `low` to `high`; cells are a new last axis."""
    covered = np.minimum(high[..., None], edges[1:]) - np.maximum(low[..., None], edges[:-1])
    shares: Numbers = np.clip(covered, 0.0, None) / np.diff(edges)
    return shares
