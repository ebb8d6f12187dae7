"""Cumulative dose-volume histograms with the clinical goals marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from lightning_vmat.export.figures.palette import StructureStyle
from lightning_vmat.objectives.goal import GoalResult
from lightning_vmat.plan.case import BODY, Case

_VOLUME_MEASURE = re.compile(r"V([\d.]+)gy", re.IGNORECASE)
_DOSE_MEASURE = re.compile(r"D([\d.]+)$")
BINS = 300
TOP = 103.0  # end of the volume axis, %
Number = TypeVar("Number", float, NDArray[np.float64])
LEFT, RIGHT, ABOVE, BELOW = 36.0, 6.0, 6.0, 34.0  # margins around the axes, points


@dataclass(frozen=True)
class Curve:
    """A drawn histogram.

    Args:
        path: SVG path.
        colour: hex colour.
        width: line width in points.
        dashes: lengths of dashes and gaps in points; empty for a solid line.
    """

    path: str
    colour: str
    width: float
    dashes: str


@dataclass(frozen=True)
class Mark:
    """A triangle at a clinical goal: its SVG path, hex colour, and whether the goal is met."""

    path: str
    colour: str
    met: bool


@dataclass(frozen=True)
class Name:
    """The name of a structure on its curve: centre in points, hex colour, and SVG's `text-anchor`."""

    text: str
    x: float
    y: float
    colour: str
    anchor: str


@dataclass(frozen=True)
class DvhDrawing:
    """Histograms as shapes in points, origin at the upper left, for the macro `dvh_svg` of `drawings.html.j2`.

    Args:
        size: width and height.
        box: left, upper, right and lower edge of the axes.
        doses: labelled doses, Gy, and their places along x.
        volumes: labelled volumes, %, and their places along y.
        prescriptions: places of the prescribed doses along x.
        curves: in drawing order.
        marks: clinical goals.
        names: names of structures.
    """

    size: tuple[float, float]
    box: tuple[float, float, float, float]
    doses: list[tuple[str, float]]
    volumes: list[tuple[str, float]]
    prescriptions: list[float]
    curves: list[Curve]
    marks: list[Mark]
    names: list[Name]


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


def dvh_drawing(
    case: Case, dose_gy: Float[Tensor, "z y x"], goals: Sequence[GoalResult], styles: Mapping[str, StructureStyle]
) -> DvhDrawing:
    """DVHs of all structures, labelled on their curves. Triangles at the goals point to where a curve must pass."""
    names = [name for name in styles if name != BODY]
    stop_gy = max(1.12 * max(case.prescription_gy.values()), 1.02 * float(dose_gy.max()))
    edges, curves = cumulative_dvh(dose_gy, case, names, stop_gy)
    return curves_drawing(case, styles, edges, curves, goals)


def compared_dvh_drawing(
    case: Case,
    dose_gy: Float[Tensor, "z y x"],
    other_gy: Float[Tensor, "z y x"],
    styles: Mapping[str, StructureStyle],
) -> DvhDrawing:
    """DVHs of two doses: the first solid and labelled, the second dotted."""
    names = [name for name in styles if name != BODY]
    stop_gy = max(1.12 * max(case.prescription_gy.values()), 1.02 * float(dose_gy.max()), 1.02 * float(other_gy.max()))
    edges, curves = cumulative_dvh(dose_gy, case, names, stop_gy)
    _, others = cumulative_dvh(other_gy, case, names, stop_gy)
    return curves_drawing(case, styles, edges, curves, others=[others])


def curves_drawing(
    case: Case,
    styles: Mapping[str, StructureStyle],
    edges: NDArray[np.float64],
    curves: Mapping[str, NDArray[np.float64]],
    goals: Sequence[GoalResult] = (),
    others: Sequence[Mapping[str, NDArray[np.float64]]] = (),
    size: tuple[float, float] = (518.0, 353.0),
) -> DvhDrawing:
    """A drawing of DVHs that are computed already.

    Args:
        case: gives prescriptions.
        styles: style of each structure.
        edges: doses in Gy `[bin]`.
        curves: volume fraction `[bin]` by structure: drawn solid, dashed for the right one of a pair, and labelled.
        goals: clinical goals to mark.
        others: curves of other plans, drawn dotted; all lines then are thin and solid or dotted.
        size: width and height in points.
    """
    names = [name for name in styles if name != BODY and name in curves]
    stop_gy = float(edges[-1])
    box = (LEFT, ABOVE, size[0] - RIGHT, size[1] - BELOW)
    axes = _Axes(box, stop_gy)
    drawn = []
    for one, dotted in (*((other, True) for other in others), (curves, False)):
        for name in names:
            style = styles[name]
            if others:
                dashes, width = "1.7 2.2" if dotted else "", 1.7
            else:
                dashes, width = "8 3.2" if style.dashed else "", 2.2 if style.is_target else 1.6
            shown = int(np.searchsorted(-one[name], 0.0)) + 1  # up to the highest dose
            drawn.append(Curve(axes.path(edges[:shown], 100 * one[name][:shown]), style.colour, width, dashes))
    places = _goal_places([goal for goal in goals if goal.structure in styles], stop_gy)
    return DvhDrawing(
        size=size,
        box=box,
        doses=[(f"{gy:g}", axes.x(gy)) for gy in MaxNLocator(8).tick_values(0, stop_gy) if gy <= stop_gy],
        volumes=[(f"{volume}", axes.y(volume)) for volume in range(0, 101, 20)],
        prescriptions=[] if others and not goals else [axes.x(gy) for gy in case.prescription_gy.values()],
        curves=drawn,
        marks=[
            Mark(_triangle(axes.x(gy), axes.y(volume), _side(goal, volume)), styles[goal.structure].colour, goal.met)
            for goal, (gy, volume) in places
        ],
        names=[
            Name(name, axes.x(dose_gy), axes.y(volume), styles[name].colour,
                 "start" if dose_gy < 0.12 * stop_gy else "middle")
            for name, dose_gy, volume in _name_places(
                edges, {name: 100 * curves[name] for name in names}, [place for _, place in places]
            )
        ],
    )  # fmt: skip


@dataclass(frozen=True)
class _Axes:
    """Places of doses (Gy) and volumes (%) in a box."""

    box: tuple[float, float, float, float]
    stop_gy: float

    def x(self, dose_gy: Number) -> Number:
        left, _, right, _ = self.box
        return left + (right - left) * dose_gy / self.stop_gy

    def y(self, volume: Number) -> Number:
        _, upper, _, lower = self.box
        return lower - (lower - upper) * volume / TOP

    def path(self, doses_gy: NDArray[np.float64], volumes: NDArray[np.float64]) -> str:
        """Returns the SVG path through points, less those on a straight line between their neighbours."""
        x, y = self.x(doses_gy), self.y(volumes)
        turns = np.ones(len(y), dtype=bool)
        turns[1:-1] = np.abs(np.diff(y, 2)) > 0.02  # points; doses are evenly spaced
        points = zip(x[turns].tolist(), y[turns].tolist(), strict=True)
        return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in points)


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


def _goal_places(goals: Sequence[GoalResult], stop_gy: float) -> list[tuple[GoalResult, tuple[float, float]]]:
    """Returns the goals that have a place, in Gy and %; those at one place are put side by side."""
    places: list[tuple[GoalResult, tuple[float, float]]] = []
    for goal in goals:
        place = goal_place(goal)
        if place is None:
            continue
        while any(place == other for _, other in places):
            place = (place[0] + 0.017 * stop_gy, place[1])
        places.append((goal, place))
    return places


def _side(goal: GoalResult, volume: float) -> str:
    """Returns where the curve must pass: above, left of or below the place of a goal at this volume."""
    return "above" if goal.at_least else "left" if volume == 0.0 else "below"


def _triangle(x: float, y: float, side: str) -> str:
    """Returns the SVG path of a triangle that points to a side."""
    tips = {"above": (0, -4, "l4 7.5h-8z"), "left": (-4, 0, "l7.5 4v-8z"), "below": (0, 4, "l4 -7.5h-8z")}
    across, down, rest = tips[side]
    return f"M{x + across:.1f} {y + down:.1f}{rest}"


def _name_places(
    edges: NDArray[np.float64], curves: Mapping[str, NDArray[np.float64]], marks: Sequence[tuple[float, float]]
) -> list[tuple[str, float, float]]:
    """Returns dose (Gy) and volume (%) of each name: on its curve, far from other curves, goals and names."""
    span = np.array([edges[-1] * 0.5, 50.0])  # scale that weighs width as much as height
    taken = [np.array(place) / span for place in marks]
    lines = {name: np.stack((edges, curve), -1)[::3] / span for name, curve in curves.items()}
    places = []
    for name, curve in curves.items():
        on_curve = np.abs(curve - np.linspace(8, 92, 29)[:, None]).argmin(axis=1)
        points = np.stack((edges[on_curve], curve[on_curve]), -1) / span
        others = [line for label, line in lines.items() if label != name]
        to_curves = _nearest(points, np.concatenate(others)) if others else np.ones(len(points))
        to_names = _nearest(points * [0.6, 2.5], np.array(taken) * [0.6, 2.5]) if taken else np.ones(len(points))
        inside = np.minimum(1.0, np.minimum(2 * points[:, 0] + 0.05, 6 * (2.0 - points[:, 0])))
        room = np.minimum(np.minimum(2 * to_curves, to_names), 0.8) * inside - (to_names < 0.2)
        best = int(room.argmax())
        taken.append(points[best])
        places.append((name, float(edges[on_curve[best]]), float(curve[on_curve[best]])))
    return places


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the distance of each point to the nearest of the others."""
    nearest: NDArray[np.float64] = np.sqrt(np.square(points[:, None] - others).sum(axis=-1).min(axis=1))
    return nearest
