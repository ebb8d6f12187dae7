"""Beamlets: the MLC field at the isocentre plane, divided by leaf pairs and along leaf travel; BEV projection."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.checks import check_kinds
from lightning_vmat.plan.machine import Machine

SAME_MM = 1e-3  # rounding of positions in files


@dataclass(frozen=True)
class BeamletGrid:
    """Grid of beamlets: rows are leaf pairs (or groups of them moved together), columns divide the leaf travel.

    Args:
        leaf_edges_mm: row boundaries along y_b, ascending, each a leaf boundary of the machine.
        beamlet_start_mm: lower edge of the first beamlet along x_b.
        beamlet_width_mm: width of every beamlet.
        beamlets: number of beamlets in a row.
        jaws_mm: positions of the jaws X1, X2, Y1, Y2, fixed for the whole plan; None for jaws at the edges of the grid.

    Raises:
        ValueError: a value of the wrong kind, edges that do not ascend, a width or count that is not positive, or jaws
            that close the whole grid or lie inside a leaf pair or beamlet.
    """

    leaf_edges_mm: tuple[float, ...]
    beamlet_start_mm: float
    beamlet_width_mm: float
    beamlets: int
    jaws_mm: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        check_kinds(type(self), vars(self), "beamlets")
        if len(self.leaf_edges_mm) < 2 or list(self.leaf_edges_mm) != sorted(set(self.leaf_edges_mm)):
            raise ValueError(f"leaf edges {self.leaf_edges_mm} mm: expected two or more ascending numbers")
        if self.beamlet_width_mm <= 0 or self.beamlets < 1:
            raise ValueError(f"{self.beamlets} beamlets of {self.beamlet_width_mm} mm: expected positive numbers")
        x1, x2, y1, y2 = self.field_mm
        if x1 >= x2 or y1 >= y2:
            raise ValueError(f"jaws {self.jaws_mm} mm: expected X1, X2, Y1, Y2 that leave some of the beamlets open")
        for edges, jaws in ((self.beamlet_edges_mm, (x1, x2)), (torch.tensor(self.leaf_edges_mm), (y1, y2))):
            if max(float((edges - jaw).abs().min()) for jaw in jaws) > SAME_MM:
                raise ValueError(f"jaws {self.jaws_mm} mm: expected X1, X2, Y1, Y2 between leaf pairs and beamlets")

    @property
    def field_mm(self) -> tuple[float, float, float, float]:
        """X1, X2, Y1, Y2 of the part of the grid that the jaws leave open."""
        low_y, high_y = self.leaf_edges_mm[0], self.leaf_edges_mm[-1]
        if self.jaws_mm is None:
            return self.beamlet_start_mm, self.beamlet_stop_mm, low_y, high_y
        x1, x2, y1, y2 = self.jaws_mm
        return max(x1, self.beamlet_start_mm), min(x2, self.beamlet_stop_mm), max(y1, low_y), min(y2, high_y)

    @property
    def inside_jaws(self) -> Bool[Tensor, "leaf_pair beamlet"]:
        """Whether each beamlet is inside the jaw opening; jaws transmit nothing."""
        x1, x2, y1, y2 = self.field_mm
        rows, columns = self.leaf_centres_mm, self.beamlet_centres_mm
        return ((rows > y1) & (rows < y2))[:, None] & (columns > x1) & (columns < x2)

    @property
    def open_part(self) -> tuple[slice, slice]:
        """Rows and columns of the grid that the jaws leave open."""
        inside = self.inside_jaws
        rows, columns = (inside.any(dim=dim).nonzero()[:, 0] for dim in (1, 0))
        return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)

    def cropped(self, rows: slice, columns: slice) -> BeamletGrid:
        """Returns the part of the grid in these rows and columns, with unchanged jaws."""
        return replace(
            self,
            leaf_edges_mm=self.leaf_edges_mm[rows.start : rows.stop + 1],
            beamlet_start_mm=self.beamlet_start_mm + columns.start * self.beamlet_width_mm,
            beamlets=columns.stop - columns.start,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns (leaf_pair, beamlet)."""
        return len(self.leaf_edges_mm) - 1, self.beamlets

    @property
    def beamlet_edges_mm(self) -> Float[Tensor, " beamlet_edge"]:
        """Boundaries of the beamlets along x_b, one more than there are beamlets."""
        return self.beamlet_start_mm + self.beamlet_width_mm * torch.arange(self.beamlets + 1)

    @property
    def beamlet_stop_mm(self) -> float:
        """Upper edge of the last beamlet along x_b."""
        return self.beamlet_start_mm + self.beamlet_width_mm * self.beamlets

    @property
    def beamlet_centres_mm(self) -> Float[Tensor, " beamlet"]:
        """Centres of the beamlets along x_b."""
        return self.beamlet_edges_mm[:-1] + self.beamlet_width_mm / 2

    @property
    def leaf_centres_mm(self) -> Float[Tensor, " leaf_pair"]:
        """Centres of the rows along y_b."""
        edges = torch.tensor(self.leaf_edges_mm)
        return (edges[:-1] + edges[1:]) / 2


def project_to_bev(
    points_mm: Float[Tensor, "voxel 3"],
    control_points: ControlPoints,
    isocentre_mm: tuple[float, float, float],
    sad_mm: float,
) -> tuple[Float[Tensor, "control_point voxel 2"], Float[Tensor, "control_point voxel"]]:
    """Projects patient points into the beam's-eye view of every control point.

    Args:
        points_mm: patient LPS coordinates (x, y, z).
        control_points: gantry, collimator and couch angles.
        isocentre_mm: isocentre, patient LPS.
        sad_mm: source-axis distance.

    Returns:
        (x_b, y_b) scaled to the isocentre plane, mm; and the distance from the source along the beam axis, mm.
    """
    offset_mm = points_mm - torch.tensor(isocentre_mm, device=points_mm.device, dtype=points_mm.dtype)
    return view_along(control_points.beam_axes().to(points_mm), offset_mm, sad_mm)


def bev_extent(
    points_mm: Float[Tensor, "voxel 3"],
    control_points: ControlPoints,
    isocentre_mm: tuple[float, float, float],
    sad_mm: float,
) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
    """Returns the lowest and highest (x_b, y_b) of points over all control points, mm at the isocentre plane."""
    bev_mm, _ = project_to_bev(points_mm, control_points, isocentre_mm, sad_mm)
    return bev_mm.amin(dim=(0, 1)), bev_mm.amax(dim=(0, 1))


def view_along(
    axes: Float[Tensor, "control_point 3 3"], offset_mm: Float[Tensor, "voxel 3"], sad_mm: float
) -> tuple[Float[Tensor, "control_point voxel 2"], Float[Tensor, "control_point voxel"]]:
    """Does what `project_to_bev` does, for offsets from the isocentre (mm, LPS) and given beam axes (as rows)."""
    beam = torch.einsum("cij,vj->cvi", axes, offset_mm)
    distance = sad_mm - beam[..., 2]
    return beam[..., :2] * (sad_mm / distance)[..., None], distance


def fit_beamlet_grid(
    points_mm: Float[Tensor, "voxel 3"],
    control_points: ControlPoints,
    isocentre_mm: tuple[float, float, float],
    machine: Machine,
    *,
    margin_mm: float = 8.0,
    beamlet_width_mm: float = 5.0,
    leaf_pairs_per_row: int = 1,
    multiple_of: int = 4,
) -> BeamletGrid:
    """Returns the smallest grid that covers the beam's-eye view of the target from every control point.

    Args:
        points_mm: target voxel centres.
        control_points: gantry, collimator and couch angles.
        isocentre_mm: isocentre, patient LPS.
        machine: gives leaf boundaries and SAD.
        margin_mm: margin around the target's projection, at the isocentre plane.
        beamlet_width_mm: beamlet width along leaf travel.
        leaf_pairs_per_row: leaf pairs moved together as one row.
        multiple_of: rows and columns are rounded up to a multiple of this, for the networks.

    Raises:
        ValueError: the target does not fit under the machine's leaves.
    """
    low, high = bev_extent(points_mm, control_points, isocentre_mm, machine.sad_mm)
    low, high = low - margin_mm, high + margin_mm
    edges = machine.leaf_edges_mm
    if float(low[1]) < edges[0] or float(high[1]) > edges[-1]:
        raise ValueError(
            f"target spans {float(low[1]):.0f} to {float(high[1]):.0f} mm across the leaves: expected "
            f"within {edges[0]:.0f} to {edges[-1]:.0f} mm"
        )
    first = max(i for i, edge in enumerate(edges) if edge <= float(low[1]) + 1e-4)
    last = min(i for i, edge in enumerate(edges) if edge >= float(high[1]) - 1e-4)
    block = leaf_pairs_per_row * multiple_of
    count = block * math.ceil((last - first) / block)
    first = min(max(first - (count - (last - first)) // 2, 0), len(edges) - 1 - count)
    if first < 0:
        raise ValueError(f"target needs {count} leaf pairs, the machine has {len(edges) - 1}")
    columns = multiple_of * math.ceil((float(high[0]) - float(low[0])) / (multiple_of * beamlet_width_mm))
    centre = beamlet_width_mm * round(float(high[0] + low[0]) / 2 / beamlet_width_mm)
    return BeamletGrid(
        leaf_edges_mm=tuple(edges[first : first + count + 1 : leaf_pairs_per_row]),
        beamlet_start_mm=centre - columns * beamlet_width_mm / 2,
        beamlet_width_mm=beamlet_width_mm,
        beamlets=columns,
    )
