"""The drawings of the page: those of the report, for one plan, slice or control point at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from lightning_vmat.explore.made_plan import MadePlan
from lightning_vmat.explore.making import plan_result
from lightning_vmat.explore.measured import Measured, dose_axis_gy
from lightning_vmat.explore.session import Session
from lightning_vmat.export.compared_tables import goals_side_by_side
from lightning_vmat.export.figures.aperture_film import Film, aperture_film
from lightning_vmat.export.figures.dose_slices import (
    DIFFERENCE_TOP,
    PLANES,
    WASH_TOP,
    Plane,
    SlicedCase,
    difference_gradient,
    wash_gradient,
)
from lightning_vmat.export.figures.dvh import curves_drawing
from lightning_vmat.export.figures.palette import isodose_lines, structure_styles
from lightning_vmat.export.pages import page_environment
from lightning_vmat.export.tables import goal_row, machine_text
from lightning_vmat.objectives.goal import GoalResult

DVH_POINTS = (338.0, 238.0)
FILMS = 4  # kept
PREVIEW = 0  # number that stands for the generated fluence of the running computation


class Drawings:
    """Drawings of a session's plans.

    Args:
        session: the session.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        case = session.opened.case
        self.case, self.styles = case, structure_styles(case)
        everywhere = torch.full(case.grid.shape, max(case.prescription_gy.values()))  # the box of all plans is the same
        self.sliced = SlicedCase.of(case, everywhere, self.styles)
        self._films: OrderedDict[int, Film] = OrderedDict()
        template = page_environment().from_string(
            '{% from "drawings.html.j2" import plane_svg, frame_svg, dvh_svg with context %}'
            "{% if slice %}{{ plane_svg(slice, plane) }}{% elif frame %}{{ frame_svg(frame, false) }}"
            '{% else %}{{ dvh_svg(dvh, "Dose-volume histograms") }}{% endif %}'
        )
        self._render = partial(template.render, slice=None, frame=None, dvh=None)

    def page(self) -> dict[str, Any]:
        """What does not change during a session: case, planes, colours, choices of settings."""
        case, session = self.case, self.session
        highest_gy = max(case.prescription_gy.values())
        return {
            "case": case.case_id,
            "prescription": ", ".join(f"{name} {case.prescription_gy[name]:g} Gy" for name in case.target_names),
            "fractions": case.fractions,
            "protocol_goals": self._goals_by_structure(),
            "machine": machine_text(case.machine),
            "wishes": session.wish_names,
            "planners": session.planner_names,
            "fixed_arcs": case.influence_path is not None,
            "planes": [self._plane(plane) for plane in PLANES],
            "styles": {
                name: {"colour": style.colour, "dashed": style.dashed, "target": style.is_target}
                for name, style in self.styles.items()
            },
            "isodoses": [
                {"dose_gy": line.dose_gy, "fraction": line.fraction, "colour": line.colour}
                for line in isodose_lines(case)
            ],
            "wash": {"gradient": wash_gradient(), "top_gy": WASH_TOP * highest_gy},
            "difference": {"gradient": difference_gradient(), "top_gy": DIFFERENCE_TOP * highest_gy},
        }

    def slice(self, number: int, plane: Plane, index: int, against: int | None) -> dict[str, Any]:
        """One slice of a plan's dose, or of its difference to another plan's; no drawing for a preview that is gone.

        Args:
            number: number of the plan; `PREVIEW` for the generated fluence of the running computation.
            plane: name of the plane.
            index: number of the slice.
            against: plan to subtract; None for the dose itself.

        Raises:
            ValueError: no such plan or slice.
        """
        count = self.sliced.hu.shape[PLANES.index(plane)]
        if not 0 <= index < count:
            raise ValueError(f"slice {index} of the {plane} plane: expected 0 to {count - 1}")
        dose_gy = self.session.preview_volume() if number == PREVIEW else self.session.volume(number)
        if dose_gy is None:  # the computation ended meanwhile
            return {"svg": None}
        other_gy = None if against is None else self.session.volume(against)
        drawn = self.sliced.slice(plane, index, dose_gy, other_gy)
        view = self.sliced.view(plane)
        svg = self._render(slice=drawn, plane=view, styles=self.styles, isodoses=isodose_lines(self.case))
        return {"svg": svg, "position_mm": drawn.position_mm, "at": drawn.at}

    def dvh(self, measured: Measured, others: Sequence[Measured] = ()) -> str:
        """Dose-volume histograms of a plan, solid, and of other plans, dotted."""
        others_curves = [one.curves for one in others]
        drawing = curves_drawing(
            self.case, self.styles, dose_axis_gy(self.case), measured.curves, measured.goals, others_curves, DVH_POINTS
        )
        return self._render(dvh=drawing)

    def frames(self, number: int) -> dict[str, Any]:
        """The aperture of every control point of a plan, as in the report."""
        film = self._film(number)
        return {
            "size": film.size,
            "frames": [self._render(frame=frame, film=film, styles=self.styles) for frame in film.frames],
            "labels": [
                f"Gantry {frame.gantry_deg:.0f}° · {frame.mu:.1f} MU"
                + (f" · arc {frame.arc}" if film.frames[-1].arc > 1 else "")
                for frame in film.frames
            ],
        }

    def figures(self, made: MadePlan, against: MadePlan | None) -> dict[str, Any]:
        """Goals, figures and machine check of a plan, with what changed against another one."""
        changes = {}
        if against is not None:
            for structure, change in goals_side_by_side(made.measured.goals, against.measured.goals):
                changes[structure, change.label] = (change.difference, change.better)
        rows = []
        for goal in made.measured.goals:
            row = goal_row(goal)
            difference, better = changes.get((row.structure, row.measure), ("", None))
            rows.append({**vars(row), "difference": difference, "better": better})
        broken = {name: count for name, count in made.violations.items() if count}
        return {
            "number": made.number,
            "exact": made.measured.exact,
            "settings": made.settings.as_json(),
            "seed": made.seed,
            "goals": rows,
            "goals_met": sum(goal.met for goal in made.measured.goals),
            "mu": float(made.plan.mu.sum()),
            "delivery_s": made.delivery_s,
            "violations": sum(made.violations.values()),
            "broken": broken,
            "objective": made.measured.objective,
            "seconds": sum(made.trace.seconds.values()),
            "figures": made.figures,
        }

    def _film(self, number: int) -> Film:
        if number not in self._films:
            made = self.session.plan(number)
            self._films[number] = aperture_film(made.case, plan_result(made))
            while len(self._films) > FILMS:
                self._films.popitem(last=False)
        return self._films[number]

    def _plane(self, plane: Plane) -> dict[str, Any]:
        view = self.sliced.view(plane)
        return {
            "plane": plane,
            "letters": view.letters,
            "size": view.size,
            "count": self.sliced.hu.shape[PLANES.index(plane)],
            "central": view.central,
        }

    def _goals_by_structure(self) -> dict[str, list[str]]:
        goals: dict[str, list[str]] = {}
        highest = max(self.case.prescription_gy.values())
        for goal in self.session.protocol.goals:
            limit = goal.limit
            if goal.of_prescription:
                limit *= self.case.prescription_gy.get(goal.structure, highest)
            row = goal_row(GoalResult(goal.structure, goal.measure, limit, limit, goal.at_least is not None, True))
            goals.setdefault(goal.structure, []).append(f"{row.measure} {row.limit}")
        return goals
