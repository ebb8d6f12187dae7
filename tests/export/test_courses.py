"""Courses of planners in one figure."""

from __future__ import annotations

import numpy as np

from lightning_vmat.export.figures.convergence import courses_figure
from lightning_vmat.planning.planner import TracePoint


def test_courses_look_different_and_break_where_a_stage_ends() -> None:
    stages = ["fluence", "fluence", "apertures", "apertures"]
    course = [TracePoint(stage, number, 0.1 * number, 100.0 / (1 + number)) for number, stage in enumerate(stages)]
    names = [f"planner {number}" for number in range(8)]
    by_work, by_time = courses_figure(dict.fromkeys(names, course)).axes
    assert by_work.get_legend_handles_labels()[1] == names
    for axes in (by_work, by_time):
        assert [np.asarray(line.get_xdata()).size for line in axes.lines] == [2] * 16
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 8
