"""The course of planning: objective against dose evaluations and against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lightning_vmat.export.figures.palette import SERIES
from lightning_vmat.export.figures.svg import plain_axes
from lightning_vmat.planning.planner import TracePoint

DASHES = ("solid", "dashed", "dotted")  # when all colours are used


def convergence_figure(points: Sequence[TracePoint]) -> Figure:
    """Objective on a logarithmic axis, with a colour for each stage."""
    stages = dict.fromkeys(point.stage for point in points)
    return courses_figure({
        stage.replace("_", " ").lstrip(): [point for point in points if point.stage == stage] for stage in stages
    })  # fmt: skip


def courses_figure(courses: Mapping[str, Sequence[TracePoint]]) -> Figure:
    """Objective on a logarithmic axis, against dose evaluations and seconds, with a colour for each planner.

    A line breaks where a stage ends, because sequencing raises the objective.
    """
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    by_work, by_time = figure.subplots(1, 2, sharey=True)
    plain_axes(by_work, xlabel="Dose evaluations", ylabel="Objective")
    plain_axes(by_time, xlabel="Wall time (s)", ylabel="")
    for number, (name, part) in enumerate(courses.items()):
        style: dict[str, Any] = {"color": SERIES[number % len(SERIES)], "linewidth": 1.7, "markersize": 3.5}
        style["linestyle"] = DASHES[number // len(SERIES) % len(DASHES)]
        for stage in dict.fromkeys(p.stage for p in part):
            points = [p for p in part if p.stage == stage]
            style["marker"] = "o" if len(points) < 25 else ""
            label = name if points[0] is part[0] else None
            by_work.plot([p.dose_evaluations for p in points], [p.objective for p in points], label=label, **style)
            by_time.plot([p.seconds for p in points], [p.objective for p in points], **style)
    if all(point.objective > 0 for part in courses.values() for point in part):
        by_work.set_yscale("log")
        for axis_format in (by_work.yaxis.set_major_formatter, by_work.yaxis.set_minor_formatter):
            axis_format(LogFormatter(labelOnlyBase=False, minor_thresholds=(2.0, 0.5)))
    by_work.legend(frameon=False, fontsize=8.5)
    return figure
