"""Delivery along the arcs: monitor units, gantry speed, dose rate, leaf travel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lightning_vmat.export.figures.palette import INK, MUTED, SERIES
from lightning_vmat.export.figures.svg import plain_axes
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import step_seconds


@dataclass(frozen=True)
class Delivery:
    """Speeds of a delivery at the highest gantry speed and dose rate that the plan allows.

    Args:
        gantry_deg_per_s: gantry speed in each sector.
        dose_rate_mu_per_min: dose rate in each sector.
        leaf_mm_per_s: speed of the fastest leaf from each control point to the next; 0 between arcs.
        mean_travel_mm: mean leaf travel of each step, over the leaves that open in the arcs.
        beam_on_s: total beam-on time, including time for leaves.
    """

    gantry_deg_per_s: Float[Tensor, " control_point"]
    dose_rate_mu_per_min: Float[Tensor, " control_point"]
    leaf_mm_per_s: Float[Tensor, " step"]
    mean_travel_mm: Float[Tensor, " step"]
    beam_on_s: float


def delivery(case: Case, plan: Plan) -> Delivery:
    """Compute the speeds of a delivery."""
    points, machine = case.control_points, case.machine
    seconds = torch.maximum(points.sector_deg / machine.gantry_speed_deg_per_s, plan.mu / machine.dose_rate_mu_per_s)
    same_arc = (points.arc_index[1:] == points.arc_index[:-1]).float()
    moves = torch.cat((plan.left_mm, plan.right_mm), dim=-1).diff(dim=0).abs() * same_arc[:, None]
    active = (plan.right_mm - plan.left_mm > 2 * machine.min_leaf_gap_mm).any(dim=0).repeat(2)
    return Delivery(
        gantry_deg_per_s=points.sector_deg / seconds,
        dose_rate_mu_per_min=60 * plan.mu / seconds,
        leaf_mm_per_s=moves.amax(dim=-1) / step_seconds(plan.mu, case.beam_setup),
        mean_travel_mm=moves[:, active].mean(dim=-1) if bool(active.any()) else moves.mean(dim=-1),
        beam_on_s=float(delivery_seconds(plan, case.beam_setup).sum()),
    )


def delivery_figure(case: Case, plan: Plan) -> Figure:
    """Monitor units, gantry speed and dose rate, leaf speed and travel along the control points; limits dashed."""
    course, machine = delivery(case, plan), case.machine
    number = np.arange(1, len(plan.mu) + 1)
    figure = Figure(figsize=(7.6, 7.6), layout="constrained")
    monitor, gantry, rate, leaves, travel = figure.subplots(5, 1, sharex=True)
    _panel(monitor, "Monitor units per control point")
    monitor.bar(number, plan.mu.cpu().numpy(), width=0.85, color=SERIES[0])
    _panel(gantry, "Gantry speed (deg/s)")
    gantry.step(number, course.gantry_deg_per_s.cpu().numpy(), where="mid", color=SERIES[2], linewidth=1.5)
    _limit(gantry, machine.gantry_speed_deg_per_s)
    _panel(rate, "Dose rate (MU/min)")
    rate.step(number, course.dose_rate_mu_per_min.cpu().numpy(), where="mid", color=SERIES[1], linewidth=1.5)
    _limit(rate, 60 * machine.dose_rate_mu_per_s)
    _panel(leaves, "Leaf speed (mm/s)")
    middle, leaf_speed = number[:-1] + 0.5, course.leaf_mm_per_s.cpu().numpy()
    leaves.fill_between(middle, leaf_speed, step="mid", color=SERIES[3], alpha=0.25, linewidth=0)
    leaves.step(middle, leaf_speed, where="mid", color=SERIES[3], linewidth=1.2)
    _limit(leaves, machine.leaf_speed_mm_per_s)
    _panel(travel, "Mean leaf travel (mm)", xlabel="Gantry angle (deg)")
    travel.bar(middle, course.mean_travel_mm.cpu().numpy(), width=0.85, color=SERIES[4])
    _gantry_ticks(travel, case)
    for axes in (monitor, gantry, rate, leaves, travel):
        axes.set_ylim(bottom=0)
        _arc_breaks(axes, case)
    return figure


def _panel(axes: Axes, title: str, xlabel: str = "") -> None:
    """Set up axes with the quantity as a title, which needs no width."""
    plain_axes(axes, xlabel=xlabel, ylabel="")
    axes.set_title(title, loc="left", color=MUTED, pad=3)


def _limit(axes: Axes, value: float) -> None:
    """Draw a limit of the machine as a dashed line that is always visible."""
    axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.18 * value)
    axes.annotate(f"limit {value:g}", (1.0, value), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                  textcoords="offset points", ha="right", va="bottom", fontsize=8, color=MUTED)  # fmt: skip


def _arc_breaks(axes: Axes, case: Case) -> None:
    """Draw a vertical line between arcs."""
    index = case.control_points.arc_index
    for step in (index.diff() != 0).nonzero()[:, 0].tolist():
        axes.axvline(step + 1.5, color=MUTED, linewidth=1.0)


def _gantry_ticks(axes: Axes, case: Case) -> None:
    """Label about a dozen control points with their gantry angles."""
    count = len(case.control_points)
    places = list(range(0, count, max(1, round(count / 12))))
    axes.set_xticks([place + 1 for place in places],
                    [f"{float(case.control_points.gantry_deg[place]):.0f}" for place in places])  # fmt: skip
    axes.set_xlim(0.2, count + 0.8)
