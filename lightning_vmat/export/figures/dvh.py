"""Cumulative dose-volume histograms with the clinical goals marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.export.figures.palette import MUTED, StructureStyle
from lightning_vmat.export.figures.svg import plain_axes
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.case import BODY, Case

_VOLUME_MEASURE = re.compile(r"V([\d.]+)gy", re.IGNORECASE)
_DOSE_MEASURE = re.compile(r"D([\d.]+)$")
_HALO = [patheffects.withStroke(linewidth=3.0, foreground="white")]
BINS = 300


def cumulative_dvh(
    dose_gy: Float[Tensor, "z y x"], case: Case, names: Sequence[str], stop_gy: float
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Cumulative DVHs: volume fraction of each structure that receives at least each dose, on an even dose axis.

    Returns:
        Doses in Gy `[bin]`; volume fraction `[bin]` by structure name.
    """
    edges = np.linspace(0.0, stop_gy, BINS + 1)
    curves = {}
    for name in names:
        values = np.sort(dose_gy[case.structures[name]].double().cpu().numpy())
        curves[name] = 1.0 - np.searchsorted(values, edges, side="left") / len(values)
    return edges, curves


def dvh_figure(
    case: Case, dose_gy: Float[Tensor, "z y x"], goals: Sequence[GoalResult], styles: Mapping[str, StructureStyle]
) -> Figure:
    """DVHs of all structures, labelled on their curves. Triangles at the goals point to where a curve must pass."""
    names = [name for name in styles if name != BODY]
    stop_gy = max(1.12 * max(case.prescription_gy.values()), 1.02 * float(dose_gy.max()))
    edges, curves = cumulative_dvh(dose_gy, case, names, stop_gy)
    return curves_figure(case, styles, edges, curves, goals)


def compared_dvh_figure(
    case: Case,
    dose_gy: Float[Tensor, "z y x"],
    other_gy: Float[Tensor, "z y x"],
    styles: Mapping[str, StructureStyle],
) -> Figure:
    """DVHs of two doses: the first solid and labelled, the second dotted."""
    names = [name for name in styles if name != BODY]
    stop_gy = max(1.12 * max(case.prescription_gy.values()), 1.02 * float(dose_gy.max()), 1.02 * float(other_gy.max()))
    edges, curves = cumulative_dvh(dose_gy, case, names, stop_gy)
    _, others = cumulative_dvh(other_gy, case, names, stop_gy)
    return curves_figure(case, styles, edges, curves, others=[others])


def curves_figure(
    case: Case,
    styles: Mapping[str, StructureStyle],
    edges: NDArray[np.float64],
    curves: Mapping[str, NDArray[np.float64]],
    goals: Sequence[GoalResult] = (),
    others: Sequence[Mapping[str, NDArray[np.float64]]] = (),
    size: tuple[float, float] = (7.2, 4.9),
) -> Figure:
    """A figure of DVHs that are computed already.

    Args:
        case: gives prescriptions.
        styles: style of each structure.
        edges: doses in Gy `[bin]`.
        curves: volume fraction `[bin]` by structure: drawn solid, dashed for the right one of a pair, and labelled.
        goals: clinical goals to mark.
        others: curves of other plans, drawn dotted; all lines then are thin and solid or dotted.
        size: width and height in inches.
    """
    names = [name for name in styles if name != BODY and name in curves]
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    plain_axes(axes, xlabel="Dose (Gy)", ylabel="Volume (%)")
    for prescribed_gy in () if others and not goals else case.prescription_gy.values():
        axes.axvline(prescribed_gy, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    for one, dotted in (*((other, True) for other in others), (curves, False)):
        for name in names:
            style = styles[name]
            shown = np.searchsorted(-one[name], 0.0) + 1  # up to the highest dose
            if others:
                line, width = (0, (1, 1.3)) if dotted else "-", 1.7
            else:
                line, width = (0, (5, 2)) if style.dashed else "-", 2.2 if style.is_target else 1.6
            axes.plot(edges[:shown], 100 * one[name][:shown], color=style.colour, linewidth=width, linestyle=line)
    stop_gy = float(edges[-1])
    marks = _mark_goals(axes, [goal for goal in goals if goal.structure in styles], styles, stop_gy)
    axes.set_xlim(0, stop_gy)
    axes.set_ylim(0, 103)
    _label_curves(axes, edges, {name: 100 * curves[name] for name in names}, styles, marks)
    return figure


def goal_place(goal: GoalResult) -> tuple[float, float] | None:
    """Dose (Gy) and volume (%) of a goal's limit on the DVH; None for a goal on the mean dose."""
    volume, dose = _VOLUME_MEASURE.match(goal.measure), _DOSE_MEASURE.match(goal.measure)
    if volume:
        return float(volume[1]), 100 * goal.limit
    if dose:
        return goal.limit, float(dose[1])
    if goal.measure == "max" or goal.measure.endswith("cc"):
        return goal.limit, 0.0
    return None


def _mark_goals(
    axes: Axes, goals: Sequence[GoalResult], styles: Mapping[str, StructureStyle], stop_gy: float
) -> list[tuple[float, float]]:
    """Draw a triangle at each goal, filled if met; triangles at one place are drawn side by side.

    Returns:
        Positions of the triangles.
    """
    places: list[tuple[float, float]] = []
    for goal in goals:
        place = goal_place(goal)
        if place is None:
            continue
        while place in places:
            place = (place[0] + 0.017 * stop_gy, place[1])
        places.append(place)
        colour = styles[goal.structure].colour
        marker = "^" if goal.at_least else "<" if place[1] == 0.0 else "v"
        axes.plot(*place, marker=marker, markersize=7.5, color=colour, markerfacecolor=colour if goal.met else "white",
                  markeredgewidth=1.6, linestyle="none", clip_on=False, zorder=5)  # fmt: skip
    return places


def _label_curves(
    axes: Axes,
    edges: NDArray[np.float64],
    curves: Mapping[str, NDArray[np.float64]],
    styles: Mapping[str, StructureStyle],
    marks: Sequence[tuple[float, float]],
) -> None:
    """Write each name on its curve, as far as possible from other curves, goals and names."""
    span = np.array([edges[-1] * 0.5, 50.0])  # scale that weighs width as much as height
    taken = [np.array(place) / span for place in marks]
    for name, curve in curves.items():
        on_curve = [int(np.abs(curve - level).argmin()) for level in np.linspace(8, 92, 29)]
        others = [np.stack((edges, other), -1) / span for label, other in curves.items() if label != name]
        room: list[float] = []
        for i in on_curve:
            point = np.array([edges[i], curve[i]]) / span
            to_curves = min((float(np.linalg.norm(other - point, axis=1).min()) for other in others), default=1.0)
            to_names = min((float(np.linalg.norm((point - place) * [0.6, 2.5])) for place in taken), default=1.0)
            inside = min(1.0, 2 * float(point[0]) + 0.05, 6 * (2.0 - float(point[0])))
            covered = 1.0 if to_names < 0.2 else 0.0
            room.append(min(2.0 * to_curves, to_names, 0.8) * inside - covered)
        best = on_curve[int(np.argmax(room))]
        taken.append(np.array([edges[best], curve[best]]) / span)
        axes.text(edges[best], curve[best], name, color=styles[name].colour, fontsize=8.5, fontweight="bold",
                  ha="left" if edges[best] < 0.12 * edges[-1] else "center", va="center", path_effects=_HALO,
                  zorder=6, parse_math=False)  # fmt: skip
