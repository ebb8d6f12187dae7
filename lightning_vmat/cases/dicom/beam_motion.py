"""An arc of an RTPLAN in equal sectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class BeamMotion:
    """An arc in equal sectors; see `lightning_vmat.plan.arc.Arc`.

    Args:
        gantry_start_deg: gantry angle at the beginning.
        gantry_stop_deg: gantry angle at the end.
        direction: `clockwise` or `counterclockwise`.
        collimator_deg: collimator angle, constant.
        couch_deg: couch angle, constant.
        leaf_edges_mm: boundaries of the leaf pairs.
        mu: monitor units of each sector `[sector]`.
        left_mm: tips of bank X1 in the middle of each sector `[sector, leaf_pair]`.
        right_mm: tips of bank X2 `[sector, leaf_pair]`.
        jaws_mm: X and Y jaws in the middle of each sector `[sector, 2, 2]`.
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
