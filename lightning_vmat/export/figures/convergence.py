"""The planner's course: objective against dose evaluations and against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lightning_vmat.export.figures.palette import SERIES
from lightning_vmat.export.figures.svg import plain_axes
from lightning_vmat.planning.planner import TracePoint


def convergence_figure(points: Sequence[TracePoint]) -> Figure:
    """Objective on a logarithmic axis, one colour a stage."""
    stages = dict.fromkeys(point.stage for point in points)
    return courses_figure({
        stage.replace("_", " ").lstrip(): [point for point in points if point.stage == stage] for stage in stages
    })  # fmt: skip


def courses_figure(courses: Mapping[str, Sequence[TracePoint]]) -> Figure:
    """Objective on a logarithmic axis, against dose evaluations and against seconds, one colour a course."""
    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    by_work, by_time = figure.subplots(1, 2, sharey=True)
    plain_axes(by_work, xlabel="Dose evaluations", ylabel="Objective")
    plain_axes(by_time, xlabel="Wall time (s)", ylabel="")
    for number, (name, part) in enumerate(courses.items()):
        colour, marker = SERIES[number % len(SERIES)], "o" if len(part) < 25 else ""
        for axes, place in ((by_work, [p.dose_evaluations for p in part]), (by_time, [p.seconds for p in part])):
            axes.plot(place, [p.objective for p in part], color=colour, marker=marker, markersize=3.5, linewidth=1.7,
                      label=name)  # fmt: skip
    if all(point.objective > 0 for part in courses.values() for point in part):
        by_work.set_yscale("log")
        for axis_format in (by_work.yaxis.set_major_formatter, by_work.yaxis.set_minor_formatter):
            axis_format(LogFormatter(labelOnlyBase=False, minor_thresholds=(2.0, 0.5)))
    by_work.legend(frameon=False, fontsize=8.5)
    return figure
