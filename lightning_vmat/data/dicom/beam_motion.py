"""One beam of an RTPLAN, cut into the equal sectors of an arc."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_vmat.data.dicom.beam_path import SAME_DEG, BeamPath, Numbers


@dataclass(frozen=True)
class BeamMotion:
    """An arc in equal sectors; see `lightning_vmat.plan.arc.Arc`.

    Args:
        gantry_start_deg: where it begins.
        gantry_stop_deg: where it ends.
        direction: `clockwise` or `counterclockwise`.
        collimator_deg: constant.
        couch_deg: constant.
        leaf_edges_mm: boundaries of the leaf pairs.
        mu: monitor units given in each sector `[sector]`.
        left_mm: tips of bank X1 in the middle of each sector `[sector, leaf_pair]`.
        right_mm: tips of bank X2.
        jaws_mm: X and Y jaws there `[sector, 2, 2]`.
    """

    gantry_start_deg: float
    gantry_stop_deg: float
    direction: str
    collimator_deg: float
    couch_deg: float
    leaf_edges_mm: tuple[float, ...]
    mu: Numbers
    left_mm: Numbers
    right_mm: Numbers
    jaws_mm: Numbers


def in_sectors(path: BeamPath, halves: bool, sectors: int | None = None) -> BeamMotion:
    """Cut a beam into sectors: one between two control points where these are evenly spaced, or as many as asked for.

    Monitor units of a sector are the difference of the meterset at its ends, leaves and jaws those at its middle.

    Args:
        path: control points of the beam.
        halves: whether each sector has a control point in its middle.
        sectors: how many are wanted.
    """
    travelled, given = path.travelled_deg, path.given_mu
    sectors = sectors or _natural_sectors(travelled, halves)
    ends = travelled[-1] * np.arange(sectors + 1) / sectors
    given_at_ends = _at(ends, travelled, given[:, None])[:, 0]
    given_at_ends[[0, -1]] = 0.0, given[-1]  # whatever is given while the gantry stands still there
    middles = (ends[:-1] + ends[1:]) / 2
    return BeamMotion(
        gantry_start_deg=path.gantry_start_deg,
        gantry_stop_deg=path.gantry_stop_deg,
        direction=path.direction,
        collimator_deg=path.collimator_deg,
        couch_deg=path.couch_deg,
        leaf_edges_mm=path.leaf_edges_mm,
        mu=np.diff(given_at_ends),
        left_mm=_at(middles, travelled, path.left_mm),
        right_mm=_at(middles, travelled, path.right_mm),
        jaws_mm=_at(middles, travelled, path.jaws_mm.reshape(-1, 4)).reshape(-1, 2, 2),
    )


def _natural_sectors(travelled: Numbers, halves: bool) -> int:
    """As many as there are steps between control points, or half of that."""
    steps = np.diff(travelled)
    sectors = max(1, round(float(travelled[-1]) / float(np.median(steps[steps > SAME_DEG]))))
    return sectors // 2 if halves and sectors % 2 == 0 else sectors


def _at(places: Numbers, known: Numbers, values: Numbers) -> Numbers:
    """Columns of values, interpolated between where they are known."""
    return np.stack([np.interp(places, known, column) for column in values.T], axis=1)
