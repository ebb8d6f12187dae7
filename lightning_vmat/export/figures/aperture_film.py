"""Beam's-eye view of each control point: leaves, opening and target outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lightning_vmat.export.figures.paths import UNITS_PER_MM, contour_path, image_address
from lightning_vmat.plan.beamlets import BeamletGrid, project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.planner import PlanResult

_MARGIN_MM = 14.0
_BEAM = colormaps["YlOrBr"]


@dataclass(frozen=True)
class FilmFrame:
    """The frame of one control point; lengths in units of 0.1 mm from the frame's top left corner.

    Args:
        number: number of the control point, from 1.
        arc: number of its arc, from 1.
        gantry_deg: gantry angle.
        mu: monitor units of one fraction; for an ideal fluence map its maximum.
        colour: colour of the opening, darker for more monitor units.
        leaves: path of both banks; empty for an ideal fluence map.
        fluence: data URI of the image of an ideal fluence map; empty with leaves.
        targets: outlines by target name.
        head: position of the letter H for the patient's head; None if the beam is along the body.
    """

    number: int
    arc: int
    gantry_deg: float
    mu: float
    colour: str
    leaves: str
    fluence: str
    targets: dict[str, str]
    head: tuple[int, int] | None


@dataclass(frozen=True)
class Film:
    """All frames of a plan.

    Args:
        size: width and height of a frame.
        isocentre: central axis from the top left corner.
        field: left, top, width and height of the beamlet grid.
        jaws: the same of the jaw opening, as wide as a frame without X jaws.
        frames: one frame for each control point.
        selected: indices of the frames shown side by side.
    """

    size: tuple[int, int]
    isocentre: tuple[int, int]
    field: tuple[int, int, int, int]
    jaws: tuple[int, int, int, int]
    frames: tuple[FilmFrame, ...]
    selected: tuple[int, ...]


def aperture_film(case: Case, result: PlanResult, shown: int = 12) -> Film:
    """The film of a plan, or of a fluence map if there is no plan."""
    grid = case.beamlets
    x1, x2, y1, y2 = grid.field_mm
    left, right = grid.beamlet_start_mm - _MARGIN_MM, grid.beamlet_stop_mm + _MARGIN_MM
    if not case.machine.x_jaws:
        x1, x2 = left, right
    bottom, top = grid.leaf_edges_mm[0] - _MARGIN_MM, grid.leaf_edges_mm[-1] + _MARGIN_MM
    origin_mm = (left, top)
    size = (_units(right - left), _units(top - bottom))
    mu = result.plan.mu if result.plan else result.fluence_mu.amax(dim=(1, 2))
    outlines = _target_outlines(case, (left, right, bottom, top))
    count = len(case.control_points)
    return Film(
        size=size,
        isocentre=(_units(-left), _units(top)),
        field=(_units(_MARGIN_MM), _units(_MARGIN_MM), size[0] - 2 * _units(_MARGIN_MM),
               size[1] - 2 * _units(_MARGIN_MM)),
        jaws=(_units(x1 - left), _units(top - y2), _units(x2 - x1), _units(y2 - y1)),
        frames=tuple(_frame(case, result, i, mu, origin_mm, size, outlines[i]) for i in range(count)),
        selected=_selected(case, shown),
    )  # fmt: skip


def _selected(case: Case, shown: int) -> tuple[int, ...]:
    """Control points spread evenly over each arc."""
    chosen, first = [], 0
    for arc in case.arcs:
        part = min(arc.control_points, max(3, shown // len(case.arcs)))
        chosen += [first + int((i + 0.5) * arc.control_points / part) for i in range(part)]
        first += arc.control_points
    return tuple(chosen)


def _units(length_mm: float) -> int:
    return round(UNITS_PER_MM * length_mm)


def _frame(
    case: Case, result: PlanResult, i: int, mu: Float[Tensor, " control_point"], origin_mm: tuple[float, float],
    size: tuple[int, int], targets: dict[str, str],
) -> FilmFrame:  # fmt: skip
    """The frame of one control point."""
    points, plan = case.control_points, result.plan
    leaves, fluence = "", ""
    if plan is not None:
        leaves = _leaf_path(plan.left_mm[i].tolist(), plan.right_mm[i].tolist(), case.beamlets, origin_mm, size[0])
    else:
        fluence = _fluence_image(result.fluence_mu[i], float(result.fluence_mu.max()))
    head = points.beam_axes()[i, :2, 2]  # the patient's z axis in the beam's x_b, y_b
    place = None
    if float(head.norm()) > 0.5:
        radius = 0.5 * min(size) - _units(_MARGIN_MM / 2)
        x, y = (head / head.abs().max() * radius).tolist()
        place = (round(size[0] / 2 + x), round(size[1] / 2 - y))
    return FilmFrame(
        number=i + 1, arc=int(points.arc_index[i]) + 1, gantry_deg=float(points.gantry_deg[i]), mu=float(mu[i]),
        colour=to_hex(_BEAM(0.12 + 0.5 * float(mu[i]) / max(float(mu.max()), 1e-6))),
        leaves=leaves, fluence=fluence, targets=targets, head=place,
    )  # fmt: skip


def _leaf_path(
    left_mm: list[float], right_mm: list[float], grid: BeamletGrid, origin_mm: tuple[float, float], width: int
) -> str:
    """A rectangle for each leaf, from the frame's edge to its tip."""
    path = []
    for row, (left, right) in enumerate(zip(left_mm, right_mm, strict=True)):
        top = _units(origin_mm[1] - grid.leaf_edges_mm[row + 1])
        height = _units(origin_mm[1] - grid.leaf_edges_mm[row]) - top
        for start, tip in ((0, _units(left - origin_mm[0])), (width, _units(right - origin_mm[0]))):
            path.append(f"M{start} {top}H{min(max(tip, 0), width)}v{height}H{start}z")
    return "".join(path)


def _fluence_image(fluence_mu: Float[Tensor, "leaf_pair beamlet"], top_mu: float) -> str:
    """Image of the map of one control point, largest y_b at the top."""
    relative = (fluence_mu / max(top_mu, 1e-9)).flip(0).cpu().numpy()
    return image_address(np.rint(255 * _BEAM(relative)[..., :3]).astype(np.uint8), lossless=True)


def _target_outlines(case: Case, frame_mm: tuple[float, float, float, float]) -> list[dict[str, str]]:
    """Beam's-eye-view outline of each target at every control point."""
    outlines: list[dict[str, str]] = [{} for _ in range(len(case.control_points))]
    pixel_mm = 1.1 * max(case.grid.spacing_mm)
    for name in case.target_names:
        index = case.structures[name].flatten().nonzero()[:, 0]
        points_mm = case.grid.centres_mm(index)
        bev_mm, _ = project_to_bev(points_mm, case.control_points, case.isocentre_mm, case.machine.sad_mm)
        for i, seen in enumerate(bev_mm):
            outlines[i][name] = contour_path(_silhouette(seen, frame_mm, pixel_mm), 0.5, (pixel_mm, pixel_mm))
    return outlines


def _silhouette(
    bev_mm: Float[Tensor, "voxel 2"], frame_mm: tuple[float, float, float, float], pixel_mm: float
) -> NDArray[np.bool_]:
    """Pixels of the frame, top row first, that a projected voxel falls into."""
    left, right, bottom, top = frame_mm
    columns, rows = int(np.ceil((right - left) / pixel_mm)), int(np.ceil((top - bottom) / pixel_mm))
    column = ((bev_mm[:, 0] - left) / pixel_mm).floor().long()
    row = ((top - bev_mm[:, 1]) / pixel_mm).floor().long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    flat = torch.bincount(row[inside] * columns + column[inside], minlength=rows * columns)
    closed: NDArray[np.bool_] = ndimage.binary_closing((flat > 0).reshape(rows, columns).numpy())
    return closed
