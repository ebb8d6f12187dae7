"""Matplotlib figures as inline SVG that takes its fonts from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lightning_vmat.export.figures.palette import INK, MUTED, RULE

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning_vmat",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.0,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """The figure style of the report, for drawing and saving; the caller's settings are restored afterwards."""
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def plain_axes(axes: Axes, *, xlabel: str, ylabel: str) -> None:
    """Axes with two spines, a light grid behind the data, and labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def inline_svg(figure: Figure, description: str) -> Markup:
    """The `<svg>` element of a figure, which scales with the width of the page, with a name for screen readers.

    Args:
        figure: drawn without pyplot.
        description: description of the figure.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'^<svg[^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img" aria-label="@name@">', text)
    text = text.replace("xlink:href", "href").replace("@name@", str(Markup.escape(description)))
    return Markup(text)
