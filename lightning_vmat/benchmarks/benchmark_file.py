"""Figures of a comparison of planners, stored on disk while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from lightning_vmat.benchmarks.comparison import (
    Figures,
    as_table,
    dose_table,
    means,
    median_course,
    quartiles,
    with_gap,
)
from lightning_vmat.benchmarks.partial_file import PartialFile
from lightning_vmat.planning.planner import TracePoint

FiguresByCase = dict[str, dict[str, Figures]]
Points = list[tuple[str, int, float, float]]
KEPT, KEPT_LATER = ("cases", "doses_gy", "courses"), ("stages_s",)


@dataclass
class BenchmarkFile:
    """Figures by planner and case, in a partial file beside the final one until the comparison is complete.

    Args:
        path: path of the final file.
        settings: settings of the comparison; figures of other settings are refused.
        cases: figures of `measure`.
        doses_gy: figures of `key_doses`.
        courses: points of each trace, by planner and case.
        stages_s: wall seconds of each stage of planning, by planner and case.
    """

    path: Path
    settings: dict[str, object]
    cases: FiguresByCase = field(default_factory=dict)
    doses_gy: FiguresByCase = field(default_factory=dict)
    courses: dict[str, dict[str, Points]] = field(default_factory=dict)
    stages_s: FiguresByCase = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, object]) -> BenchmarkFile:
        """Load the figures of a stopped run, or start without figures.

        Raises:
            ValueError: an unreadable file, or a file of other settings.
        """
        figures = cls(path, PartialFile(path, settings).plain)
        for name, kept in zip((*KEPT, *KEPT_LATER), figures.partial.read(KEPT, KEPT_LATER) or (), strict=False):
            setattr(figures, name, kept)
        return figures

    @property
    def partial(self) -> PartialFile:
        """The file that keeps figures until the benchmark is complete."""
        return PartialFile(self.path, self.settings)

    @property
    def case_count(self) -> int:
        """Number of cases with figures of at least one planner."""
        return len({case_id for cases in self.cases.values() for case_id in cases})

    @property
    def with_gaps(self) -> FiguresByCase:
        """Figures by planner and case, with `gap` added."""
        return with_gap(self.cases)

    def has(self, planner: str, case_id: str) -> bool:
        """Whether the figures of a planner for a case are there."""
        return case_id in self.cases.get(planner, {})

    def add(self, planner: str, case_id: str, figures: Figures) -> None:
        """Add the figures of a planner for a case."""
        self.cases.setdefault(planner, {})[case_id] = figures

    def add_doses(self, planner: str, case_id: str, doses_gy: Figures) -> None:
        """Add a planner's doses to the structures of a case, Gy."""
        self.doses_gy.setdefault(planner, {})[case_id] = doses_gy

    def add_course(self, planner: str, case_id: str, points: Sequence[TracePoint]) -> None:
        """Add the course of a planner's optimization for a case."""
        self.courses.setdefault(planner, {})[case_id] = [astuple(point) for point in points]

    def add_stages(self, planner: str, case_id: str, seconds: Figures) -> None:
        """Add the wall seconds of the stages in which a planner planned a case."""
        self.stages_s.setdefault(planner, {})[case_id] = dict(seconds)

    def save(self) -> None:
        """Write the figures so far to the partial file."""
        self.partial.write({name: getattr(self, name) for name in (*KEPT, *KEPT_LATER)})

    def median_courses(self) -> dict[str, list[TracePoint]]:
        """Course of each planner, in medians over its cases."""
        return {
            name: median_course([[TracePoint(*point) for point in points] for points in cases.values()])
            for name, cases in self.courses.items()
        }

    def finish(self) -> str:
        """Write the final file, and return the tables to print."""
        cases = self.with_gaps
        summary = {name: quartiles(rows.values()) for name, rows in cases.items()}
        averages = {name: means(rows.values()) for name, rows in self.doses_gy.items()}
        figures = {
            **self.settings,
            "quartiles": summary,
            "mean_doses_gy": averages,
            "median_courses": {
                name: [[*astuple(point)[:2], round(point.seconds, 3), round(point.objective, 2)] for point in course]
                for name, course in self.median_courses().items()
            },
            "stage_quartiles_s": {name: quartiles(rows.values()) for name, rows in self.stages_s.items()},
            "cases": cases,
            "doses_gy": self.doses_gy,
        }
        self.partial.finish(json.dumps(figures, indent=1))
        tables = [as_table(cases)]
        if "clinical" in averages:
            tables.append(f"mean doses\n{dose_table(averages)}")
        return "\n\n".join(tables)
