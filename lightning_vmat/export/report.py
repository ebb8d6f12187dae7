"""The plan report: one self-contained HTML file that needs no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_vmat.export import compared_tables as comparison
from lightning_vmat.export import tables
from lightning_vmat.export.content import ReportContent
from lightning_vmat.export.figures.aperture_film import aperture_film
from lightning_vmat.export.figures.convergence import convergence_figure
from lightning_vmat.export.figures.delivery import delivery, delivery_figure
from lightning_vmat.export.figures.dose_slices import WASH_TOP, PlaneView, dose_planes, wash_gradient
from lightning_vmat.export.figures.dvh import compared_dvh_drawing, dvh_drawing
from lightning_vmat.export.figures.palette import StructureStyle, isodose_lines, structure_styles
from lightning_vmat.export.figures.svg import drawing_style, inline_svg
from lightning_vmat.export.pages import page_environment
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.plan.case import Case


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report, whole or not at all.

    Args:
        path: path of the HTML file.
        content: the planned case and its evaluation.

    Raises:
        OSError: the file cannot be written.
    """
    text = render_report(content)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def render_report(content: ReportContent) -> str:
    """The report as HTML text."""
    environment = page_environment()
    environment.filters["soft_breaks"] = soft_breaks
    case, styles = content.case, structure_styles(content.case)
    planes = dose_planes(case, content.evaluation.dose_gy, styles)
    style_sheet = (resources.files("lightning_vmat.export") / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        case=case,
        content=content,
        css=Markup(style_sheet),
        facts=tables.header_facts(content),
        arcs=[tables.arc_text(arc) for arc in case.arcs],
        goals=[tables.goal_row(goal) for goal in content.evaluation.goals],
        checks=tables.check_rows(content),
        complexity=tables.complexity_rows(content),
        styles=styles,
        volumes_cc=_volumes_cc(case, styles),
        isodoses=isodose_lines(case),
        wash_gradient=wash_gradient(),
        wash_top_gy=WASH_TOP * max(case.prescription_gy.values()),
        planes=planes,
        axial_share=_axial_share(planes),
        film=aperture_film(case, content.result),
        delivery=delivery(case, content.result.plan) if content.result.plan else None,
        dvh=dvh_drawing(case, content.evaluation.dose_gy, content.evaluation.goals, styles),
        figures=_figures(content),
        **_comparison(content, styles),
    )


def soft_breaks(name: str) -> Markup:
    """A structure name with optional line breaks between its words, for narrow tables."""
    return Markup("<wbr>").join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=_)", "\n", name).split("\n"))


def _comparison(content: ReportContent, styles: dict[str, StructureStyle]) -> dict[str, Any]:
    """Values of the section on the compared plan."""
    compared = content.compared
    if compared is None:
        return {"compared": None}
    ours, theirs = content.evaluation, compared.evaluation
    return {
        "compared": compared,
        "compared_dvh": compared_dvh_drawing(content.case, ours.dose_gy, theirs.dose_gy, styles),
        "goals_compared": comparison.goals_side_by_side(ours.goals, theirs.goals),
        "figures_compared": comparison.figures_side_by_side(ours, theirs),
        "doses_compared": comparison.doses_side_by_side(ours, theirs),
        "dose_heads": list(comparison.DOSES.values()),
    }


def _figures(content: ReportContent) -> dict[str, Markup]:
    """The charts, by name."""
    case, result = content.case, content.result
    charts = {}
    with drawing_style():
        if result.trace.points:
            charts["convergence"] = inline_svg(convergence_figure(result.trace.points), "Objective during planning")
        if result.plan:
            charts["delivery"] = inline_svg(delivery_figure(case, result.plan), "Delivery along the arcs")
    return charts


def _axial_share(planes: Sequence[PlaneView]) -> float:
    """Width of the axial view, so that it is as high as the other two views, which are above one another."""
    axial, *others = (plane.size[0] / plane.size[1] for plane in planes)
    return min(2.6, max(1.0, axial * sum(1 / aspect for aspect in others)))


def _volumes_cc(case: Case, styles: dict[str, StructureStyle]) -> dict[str, float]:
    return {name: int(case.structures[name].sum()) * case.grid.voxel_volume_cc for name in styles}
