"""Sliding-window leaf sequencing: leaves sweep across the field once in each window of sectors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.leaf_motion import gantry_half_sector_seconds
from lightning_vmat.plan.shapes import FluenceMap

TRAVEL = 0.8
"""Share of a window in which the leaves of the widest row travel, at most; the rest is for modulation."""

MOST_TRAVEL = 0.95  # in an arc that is too short for one window

FAINT = 0.02  # fluence below this share of the window's maximum is left out

Tips = Float[Tensor, "control_point leaf_pair"]


def sliding_windows(fluence_mu: FluenceMap, setup: BeamSetup) -> Plan:
    """Returns a plan in which each window of sectors delivers the sum of its maps by one sweep of the leaves.

    Sequencing one aperture per control point fails where leaves are too slow for the way from one aperture to the next.
    Here they move in one direction through a window, and back through the next one, so that any map can be delivered,
    at the price of a coarser gantry angle. In each leaf pair the leading leaf waits where the fluence falls and the
    trailing one where it rises; between, both travel at the same speed, so that all pairs end together. A plan still
    needs `plan.limits.project_to_limits`.

    Args:
        fluence_mu: non-negative fluence map.
        setup: control points, beamlets with jaws, and machine.

    References:
        Spirou, Chui, Med Phys 21:1031 (1994), for one map; Papp, Unkelbach, Med Phys 41:011701 (2014), for arcs.
    """
    fluence_mu = fluence_mu * setup.beamlets.inside_jaws.to(fluence_mu)
    sectors = max(2, math.ceil(crossing_sectors(fluence_mu, setup) / TRAVEL))
    left, right = (fluence_mu.new_empty(fluence_mu.shape[:2]) for _ in range(2))
    mu = fluence_mu.new_empty(len(fluence_mu))
    arcs = setup.control_points.arc_index
    for arc in arcs.unique():
        control_points = (arcs == arc).nonzero()[:, 0]
        for number, window in enumerate(control_points.tensor_split(max(1, len(control_points) // sectors))):
            whole, back = fluence_mu[window].sum(dim=0), bool(number % 2)
            trailing, leading, total = _sweep(whole.flip(-1) if back else whole, len(window), setup)
            # a sweep back is a sweep in the mirror image, where the leading leaf is the left one
            ends = setup.beamlets.beamlet_start_mm + setup.beamlets.beamlet_stop_mm
            left[window], right[window] = (ends - leading, ends - trailing) if back else (trailing, leading)
            mu[window] = total / len(window)
    return Plan(left, right, mu)


def crossing_sectors(fluence_mu: FluenceMap, setup: BeamSetup) -> float:
    """Returns the number of sectors in which a leaf crosses the widest row of a map at full speed."""
    used = (fluence_mu > FAINT * fluence_mu.amax()).any(dim=0)
    first, last = _ends(used)
    return float((last - first).amax()) * setup.beamlets.beamlet_width_mm / leaf_step_mm(setup)


def leaf_step_mm(setup: BeamSetup) -> float:
    """Returns how far a leaf moves in a sector at most."""
    seconds = 2 * float(gantry_half_sector_seconds(setup).median())
    return setup.machine.leaf_speed_mm_per_s * seconds * setup.gantry_slowdown


def _sweep(
    map_mu: Float[Tensor, "leaf_pair beamlet"], sectors: int, setup: BeamSetup
) -> tuple[Tips, Tips, Float[Tensor, ""]]:
    """Returns tips of the trailing and the leading leaf amid each sector, and the monitor units of the sweep."""
    beamlets = setup.beamlets
    used = map_mu > FAINT * map_mu.amax()
    first, last = _ends(used)
    edge = torch.arange(map_mu.shape[1] + 1, device=map_mu.device)
    step = torch.nn.functional.pad(map_mu * used, (1, 1)).diff(dim=1)  # at the edges of the beamlets
    rises, falls = step.clamp(min=0), (-step).clamp(min=0)
    waiting, columns = rises.sum(dim=1), last - first
    share = columns * beamlets.beamlet_width_mm / (sectors * leaf_step_mm(setup))  # of the time, at full speed
    total = (waiting / (1 - share.clamp(max=MOST_TRAVEL))).amax().clamp(min=1e-6)
    travel = torch.where((edge >= first[:, None]) & (edge < last[:, None]), 1.0, 0.0)
    travel = travel * ((total - waiting) / columns.clamp(min=1))[:, None]  # MU from each edge to the next
    now = (torch.arange(sectors, device=map_mu.device) + 0.5).to(map_mu) / sectors * total
    tips = []
    for waits in (rises, falls):
        arrival = torch.nn.functional.pad((waits + travel).cumsum(dim=1), (1, 0))[:, :-1].contiguous()
        at = torch.searchsorted(arrival, now.expand(len(map_mu), -1).contiguous(), right=True) - 1
        at = at.clamp(first[:, None], last[:, None])
        gone = now - arrival.gather(1, at) - waits.gather(1, at)
        part = (gone / travel.gather(1, at).clamp(min=1e-9)).clamp(0, 1)
        edges = torch.minimum(at + part, last[:, None])
        tips.append((beamlets.beamlet_start_mm + edges * beamlets.beamlet_width_mm).T)
    return tips[0], tips[1], total


def _ends(used: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the first and the last edge of each row's beamlets in use; the middle of a row without any."""
    count = used.shape[-1]
    anything, mask = used.any(dim=-1), used.to(torch.uint8)
    first = torch.where(anything, mask.argmax(dim=-1), count // 2)
    last = torch.where(anything, count - mask.flip(-1).argmax(dim=-1), count // 2)
    return first, last
