"""Maps leaf pairs, cut by the jaws, to the rows of a fluence map."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.beam_motion import BeamMotion, Numbers
from lightning_vmat.plan.beamlets import BeamletGrid

SAME_MM = 0.01
Tips = Float[Tensor, "sector leaf_pair"]


def on_rows(motion: BeamMotion, beamlets: BeamletGrid) -> tuple[Tips, Tips, Float[Tensor, " sector"]]:
    """Mean leaf tips of the leaf pairs of each row, cut by the jaws, mm, and monitor units.

    Leaf pairs whose centre is under a jaw count as closed.
    """
    row = torch.bucketize(_middles(motion), torch.tensor(beamlets.leaf_edges_mm).double()) - 1
    left, right = _behind_jaws(motion, beamlets)
    rows = range(len(beamlets.leaf_edges_mm) - 1)
    banks = [torch.stack([bank[:, row == k].mean(dim=1) for k in rows], dim=1) for bank in (left, right)]
    return banks[0], banks[1], torch.from_numpy(motion.mu)


def open_areas(motion: BeamMotion, beamlets: BeamletGrid) -> tuple[float, float]:
    """Monitor units times open area, MU mm2: in total, and inside a field."""
    left, right = _behind_jaws(motion, beamlets)
    middles, edges = _middles(motion), torch.tensor(motion.leaf_edges_mm).double()
    inside = (middles > beamlets.leaf_edges_mm[0]) & (middles < beamlets.leaf_edges_mm[-1])
    seen = right.clamp(max=beamlets.beamlet_stop_mm) - left.clamp(min=beamlets.beamlet_start_mm)
    weights = torch.from_numpy(motion.mu)[:, None] * edges.diff()
    areas = ((right - left) * weights, seen.clamp(min=0) * inside * weights)
    return float(areas[0].sum()), float(areas[1].sum())


def move_together(motion: BeamMotion, pairs: slice, gang: int) -> bool:
    """Whether leaf pairs always move in groups of `gang`, counted from the first."""

    def spread(bank: Numbers) -> float:
        return float(np.ptp(bank[:, pairs].reshape(len(bank), -1, gang), axis=2).max())

    whole = (pairs.stop - pairs.start) % gang == 0
    return whole and max(spread(motion.left_mm), spread(motion.right_mm)) <= SAME_MM


def _middles(motion: BeamMotion) -> Float[Tensor, " leaf_pair"]:
    edges = torch.tensor(motion.leaf_edges_mm).double()
    return (edges[:-1] + edges[1:]) / 2


def _behind_jaws(motion: BeamMotion, beamlets: BeamletGrid) -> tuple[Tips, Tips]:
    """Tips of all leaf pairs, cut by X jaws inside the field; the edges of the field act as jaws already.

    Tips behind these edges are kept, because they determine how fast a leaf comes out from behind a jaw.
    """
    jaws, middles = torch.from_numpy(motion.jaws_mm), _middles(motion)
    left, right = (torch.from_numpy(bank).clone() for bank in (motion.left_mm, motion.right_mm))
    low_mm, high_mm, _, _ = beamlets.field_mm
    inside = (jaws[:, 0, 0] > low_mm + SAME_MM, jaws[:, 0, 1] < high_mm - SAME_MM)
    left[inside[0]] = torch.maximum(left, jaws[:, 0, :1])[inside[0]]
    right[inside[1]] = torch.minimum(right, jaws[:, 0, 1:])[inside[1]]
    shut = (left > right) | (middles < jaws[:, 1, :1]) | (middles > jaws[:, 1, 1:])
    closed = (left + right) / 2
    return torch.where(shut, closed, left), torch.where(shut, closed, right)
