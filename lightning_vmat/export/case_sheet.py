"""An image sheet: axial, coronal and sagittal slices of many cases, with the outlines of their structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_vmat.files.atomic import atomic_file
from lightning_vmat.plan.case import Case, protocol_label
from lightning_vmat.plan.wishes import wishes_text

WINDOW_HU = (-160.0, 240.0)
CASES_IN_A_ROW = 2
VIEWS = ("axial", "coronal", "sagittal")
AXIS_OF_VIEW = {"axial": 0, "coronal": 1, "sagittal": 2}
COLOURS = {
    "PTV": "red",
    "PTVBoost": "magenta",
    "PTVNodes": "orange",
    "CTV": "salmon",
    "Rectum": "sienna",
    "Bladder": "gold",
    "Bowel": "limegreen",
    "PenileBulb": "violet",
    "FemoralHeadLeft": "cyan",
    "FemoralHeadRight": "cyan",
    "Body": "white",
}


def draw_sheet(cases: Sequence[Case], path: Path) -> None:
    """Write an image (by its suffix: PNG, PDF...) of slices through the isocentre.

    Args:
        cases: cases in reading order, two in a row.
        path: image file to write.
    """
    rows = -(-len(cases) // CASES_IN_A_ROW)
    figure = Figure(figsize=(CASES_IN_A_ROW * 11.0, rows * 3.0), layout="constrained", facecolor="black")
    axes = figure.subplots(rows, CASES_IN_A_ROW * len(VIEWS), squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for number, case in enumerate(cases):
        for view, axis in zip(VIEWS, axes[number * len(VIEWS) :], strict=False):
            _draw_view(case, view, axis)
        wishes = f"\nwishes: {wishes_text(case.wishes)}" if case.wishes else ""
        title = f"{case.case_id}, {protocol_label(case.protocol)}{wishes}"
        axes[number * len(VIEWS)].set_title(title, color="white", fontsize=9, loc="left")
    with atomic_file(path) as draft:
        figure.savefig(draft, dpi=110)


def _draw_view(case: Case, view: str, axis: Axes) -> None:
    """One slice; patient's left is on the right, head up."""
    cut = AXIS_OF_VIEW[view]
    index = case.grid.index_coordinates(torch.tensor(case.isocentre_mm)).round().long().tolist()[2 - cut]
    spacing = [s for i, s in enumerate(reversed(case.grid.spacing_mm)) if i != cut]
    ct = case.hu.select(cut, index).numpy()
    axis.imshow(ct, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=spacing[0] / spacing[1])
    if view != "axial":
        axis.invert_yaxis()
    for name, mask in case.structures.items():
        shown = mask.select(cut, index).numpy()
        if shown.any() and not shown.all():
            axis.contour(shown.astype(np.float32), levels=[0.5], colors=COLOURS.get(name, "white"), linewidths=0.8)
