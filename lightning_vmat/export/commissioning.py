"""Writes a commissioned machine: machine file, beam model, and a report of the fit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vmat.cases.plan_files import same_bytes
from lightning_vmat.dose.beam_model import beam_model_tensors
from lightning_vmat.dose.commissioning.fit import BeamFit, Residual
from lightning_vmat.dose.commissioning.measurements import Measurements
from lightning_vmat.export.figures.palette import SERIES
from lightning_vmat.export.figures.svg import drawing_style, inline_svg, plain_axes
from lightning_vmat.export.pages import page_environment
from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.plan.machine import Machine

TITLES = {"pdd": "Depth dose", "tpr": "Tissue-phantom ratio", "profile": "Profiles", "output_factor": "Output factors"}
LABELS = {"profile": "Distance from the axis (mm)", "output_factor": "Side of the field (mm)"}


@dataclass(frozen=True)
class Commissioned:
    """A machine with its fitted beam model.

    Args:
        machine: the machine, with limits of the base machine and measured leaf parameters.
        measured: the measurements.
        fit: the fitted beam, and its residuals.
    """

    machine: Machine
    measured: Measurements
    fit: BeamFit


def commissioning_files(out: Path) -> tuple[Path, Path, Path]:
    """Paths of the machine file, its beam model and the report, all in one folder."""
    return out, out.with_suffix(".safetensors"), out.with_suffix(".html")


def write_commissioned(out: Path, commissioned: Commissioned) -> None:
    """Write all three files.

    Args:
        out: path of the machine file (YAML).
        commissioned: machine, measurements and fit.
    """
    _, beam_file, report_file = commissioning_files(out)
    machine_text = _machine_text(commissioned, beam_file.name)
    report = _report(commissioned)
    model = same_bytes(*beam_model_tensors(commissioned.fit.model))
    for path, content in ((beam_file, model), (report_file, report.encode()), (out, machine_text.encode())):
        with atomic_file(path) as draft:
            draft.write_bytes(content)


def _machine_text(commissioned: Commissioned, beam_file: str) -> str:
    """The YAML text that `load_machine` reads."""
    machine, fit = commissioned.machine, commissioned.fit
    values = {field.name: getattr(machine, field.name) for field in fields(machine)}
    widths = np.diff(values.pop("leaf_edges_mm")).round(6).tolist()
    blocks = [[len(list(group)), width] for width, group in groupby(widths)]
    head = (
        f"# {machine.quality} of {machine.name}: fitted by `vmat commission` to {commissioned.measured.path.name}.\n"
        f"# Kernel of TPR20,10 {fit.quality:.4f}, scatter x {fit.scatter:.3f}, penumbra {fit.penumbra_mm:.2f} mm.\n"
        "# Speeds, gaps and spans are those of the machine that it was made from: check them.\n"
    )
    return head + yaml.safe_dump({**values, "beam_model": beam_file, "leaf_blocks": blocks}, sort_keys=False)


def _report(commissioned: Commissioned) -> str:
    fit = commissioned.fit
    environment = page_environment()
    with drawing_style():
        figures = [
            inline_svg(_figure(kind, title, fit), title)
            for kind, title in TITLES.items()
            if any(residual.curve.kind == kind for residual in fit.residuals)
        ]
        figures.append(inline_svg(_open_fluence(fit), "Open fluence"))
    return environment.get_template("commissioning.html.j2").render(
        machine=commissioned.machine, measured=commissioned.measured, fit=fit, figures=figures
    )


def _figure(kind: str, title: str, fit: BeamFit) -> Figure:
    """Curves of one kind, above their residuals."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for number, residual in enumerate(one for one in fit.residuals if one.curve.kind == kind):
        colour = SERIES[number % len(SERIES)]
        _draw(above, below, residual, colour)
    plain_axes(above, xlabel="", ylabel="Relative dose")
    plain_axes(below, xlabel=LABELS.get(kind, "Depth (mm)"), ylabel="Difference (%)")
    above.set_title(title, loc="left")
    above.legend(frameon=False, fontsize=8)
    return figure


def _draw(above: Axes, below: Axes, residual: Residual, colour: str) -> None:
    curve = residual.curve
    along = {"profile": curve.offset_mm, "output_factor": curve.field_mm}.get(curve.kind, curve.depth_mm)
    above.plot(along, residual.computed, color=colour, linewidth=1.2, label=curve.name)
    above.plot(along, residual.measured, ".", color=colour, markersize=3)
    below.plot(along, 100 * (residual.measured - residual.computed), color=colour, linewidth=1.0)


def _open_fluence(fit: BeamFit) -> Figure:
    figure = Figure(figsize=(7.6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(fit.model.off_axis_mm, fit.model.off_axis_fluence, color=SERIES[0], linewidth=1.5)
    plain_axes(axes, xlabel="Distance from the axis (mm)", ylabel="Fluence")
    axes.set_title("Open fluence", loc="left")
    return figure
