"""Line integrals of volumes along the divergent beam: radiological depth and beam's-eye-view thickness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.volume import VolumeGrid

Point = tuple[float, float, float]
# air, lung, adipose, water, muscle, spongiosa, cortical bone
TISSUE_HU = (-1000.0, -741.0, -90.0, 0.0, 45.0, 280.0, 1500.0)
TISSUE_DENSITY = (0.0, 0.258, 0.95, 1.0, 1.04, 1.15, 1.78)
MIN_RAY_SPACING_MM, MIN_STEP_MM = 3.0, 2.5  # not finer for a finer CT: depth is smooth on this scale


def relative_electron_density(hu: Float[Tensor, "*voxel"]) -> Float[Tensor, "*voxel"]:
    """Returns the electron density relative to water, linear between and beyond the tissues of `TISSUE_HU`.

    Reference: tissues and their electron densities: ICRU Report 46 (1992); such curves: Schneider, Pedroni, Lomax,
    Phys Med Biol 41:111 (1996). Scanners differ by some per cent in bone.
    """
    return _follow(hu, TISSUE_HU, TISSUE_DENSITY).clamp(min=0.0)


def hounsfield_units(density: Float[Tensor, "*voxel"]) -> Float[Tensor, "*voxel"]:
    """Returns the CT number of a relative electron density: the inverse of `relative_electron_density`."""
    return _follow(density, TISSUE_DENSITY, TISSUE_HU)


def _follow(value: Tensor, knots: tuple[float, ...], ordinates: tuple[float, ...]) -> Tensor:
    """Interpolates a piecewise linear curve, extrapolating with its first and last piece."""
    x, y = (torch.tensor(v, dtype=value.dtype, device=value.device) for v in (knots, ordinates))
    piece = (torch.bucketize(value.contiguous(), x) - 1).clamp(0, len(knots) - 2)
    return y[piece] + (value - x[piece]) * (y.diff() / x.diff())[piece]


def trace_rays(
    volume: Float[Tensor, "channel z y x"],
    grid: VolumeGrid,
    isocentre_mm: Point,
    control_points: ControlPoints,
    sad_mm: float,
    x_mm: Float[Tensor, " x_b"],
    y_mm: Float[Tensor, " y_b"],
    step_mm: float,
    stop_mm: float | None = None,
) -> Float[Tensor, "channel control_point y_b x_b"]:
    """Integrates volumes along the rays from the source through points of the isocentre plane.

    Args:
        volume: values to integrate, e.g. structure masks (for thickness) or relative electron density.
        grid: the volume's voxels.
        isocentre_mm: isocentre, patient LPS.
        control_points: gantry, collimator and couch angles.
        sad_mm: source-axis distance.
        x_mm: ray positions along x_b at the isocentre plane.
        y_mm: ray positions along y_b.
        step_mm: step along the beam axis.
        stop_mm: distance from the source along the beam axis where rays end; with `sad_mm` they end at the isocentre
            plane, with None beyond the volume.

    Returns:
        Integrals, mm times the volume's unit.
    """
    planes = _Planes(volume, grid, isocentre_mm, control_points, sad_mm, step_mm)
    x_mm, y_mm = x_mm.to(volume.device), y_mm.to(volume.device)
    slant = _slant(x_mm, y_mm, sad_mm) * planes.step_mm
    rays = []
    for number in range(len(control_points)):
        share = 1.0 if stop_mm is None else planes.share_before(number, stop_mm)[:, None, None]
        rays.append((planes.sample(number, x_mm, y_mm) * share).sum(dim=1) * slant)
    return torch.stack(rays, dim=1)


def radiological_depth(
    case: Case, voxel_index: Int[Tensor, " voxel"], control_points: ControlPoints | None = None
) -> Float[Tensor, "control_point voxel"]:
    """Returns the water-equivalent depth of voxels along the rays from the source, mm.

    Density is accumulated along a divergent grid of rays and interpolated at the voxels.

    Args:
        case: CT, isocentre and machine.
        voxel_index: flat indices of voxels.
        control_points: gantry, collimator and couch angles; those of the case if None.
    """
    points = control_points or case.control_points
    unrotated = replace(points, collimator_deg=torch.zeros_like(points.collimator_deg))  # the same rays, a smaller grid
    sad_mm = case.machine.sad_mm
    sx, sy, sz = case.grid.spacing_mm
    spacing, step = max(min(sx, sy, sz), MIN_RAY_SPACING_MM), max(min(sx, sy, sz), MIN_STEP_MM)
    density = relative_electron_density(case.hu.float())[None]
    planes = _Planes(density, case.grid, case.isocentre_mm, unrotated, sad_mm, step)
    voxels_mm = case.grid.centres_mm(voxel_index)
    depth = torch.empty(len(points), len(voxel_index), device=case.hu.device)
    for number in range(len(points)):
        # one integration per ray of a grid, then interpolation: far cheaper than one ray for each voxel
        bev, distance = project_to_bev(voxels_mm, _one(unrotated, number), case.isocentre_mm, sad_mm)
        x, y = (_ruler(bev[0, :, axis], spacing) for axis in (0, 1))
        passed = (planes.sample(number, x, y)[0] * planes.step_mm * _slant(x, y, sad_mm)).cumsum(dim=0)
        passed = F.pad(passed, (0, 0, 0, 0, 1, 0))  # depth at the faces between steps, zero at the first
        place = torch.stack(
            ((bev[0, :, 0] - x[0]) / spacing, (bev[0, :, 1] - y[0]) / spacing, planes.place(number, distance[0])), -1
        )
        depth[number] = _interpolate(passed[None], place[:, None, None])[0, :, 0, 0]
    return depth


DepthFunction = Callable[[Case, Int[Tensor, " voxel"]], Float[Tensor, "control_point voxel"]]
"""A function like `radiological_depth` for the control points of the case."""


def traced_once(case: Case, voxel_index: Int[Tensor, " voxel"]) -> DepthFunction:
    """Returns a function that traces the rays of a case at its first call, and then reads the depths of some voxels.

    Most of the time of `radiological_depth` goes to rays, and samples of voxels share these.

    Args:
        case: the case.
        voxel_index: flat indices of all voxels that will be asked for, in any order, repeated or not.
    """
    index = voxel_index.unique()

    @cache
    def traced() -> Float[Tensor, "control_point voxel"]:
        return radiological_depth(case, index)

    def depth(_: Case, some: Int[Tensor, " some_voxel"]) -> Float[Tensor, "control_point some_voxel"]:
        return traced()[:, torch.searchsorted(index, some.contiguous())]

    return depth


class _Planes:
    """Samples a volume on planes across the beam axis, `step_mm` apart, that span all of its non-zero voxels."""

    def __init__(
        self,
        volume: Float[Tensor, "channel z y x"],
        grid: VolumeGrid,
        isocentre_mm: Point,
        control_points: ControlPoints,
        sad_mm: float,
        step_mm: float,
    ) -> None:
        self.sad_mm, self.step_mm = sad_mm, step_mm
        device = volume.device
        filled = volume.ne(0).any(dim=0)
        bounds = []
        for axis, others in ((2, (0, 1)), (1, (0, 2)), (0, (1, 2))):  # x, y, z
            used = filled.sum(dim=others).nonzero()[:, 0]
            first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
            bounds.append((max(first - 1, 0), min(last + 1, filled.shape[axis] - 1)))
        (x0, x1), (y0, y1), (z0, z1) = bounds
        self.volume = volume[:, z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1].contiguous()
        spacing = torch.tensor(grid.spacing_mm, device=device)
        first_mm = torch.tensor(grid.origin_mm, device=device) + spacing * torch.tensor([x0, y0, z0], device=device)
        size = torch.tensor([x1 - x0 + 1, y1 - y0 + 1, z1 - z0 + 1], device=device)
        offset = first_mm - torch.tensor(isocentre_mm, device=device)
        axes = control_points.beam_axes().to(device)
        corner = torch.cartesian_prod(*torch.stack((torch.zeros_like(size), size - 1), dim=1).float()) * spacing
        along = sad_mm - (corner + offset) @ axes[:, 2].T
        self.first_mm = along.amin(dim=0).clamp(min=step_mm)
        self.count = max(1, math.ceil(float((along.amax(dim=0) - self.first_mm).max()) / step_mm))
        self.level = (axes[:, 1, :2].abs().amax(dim=1) < 1e-6).tolist()  # y_b is parallel to the patient's z
        # beam coordinates -> grid_sample's: centre of voxel i at (2 i + 1) / size - 1 (align_corners=False)
        self.axes = axes * (2 / (spacing * size))
        self.origin = -offset * 2 / (spacing * size) + 1 / size - 1

    def distances_mm(self, number: int) -> Float[Tensor, " plane"]:
        """Returns the distance from the source to each plane, in the middle of each step (midpoint rule)."""
        return self.first_mm[number] + self.step_mm * (
            torch.arange(self.count, device=self.volume.device, dtype=torch.float32) + 0.5
        )

    def place(self, number: int, distance_mm: Tensor) -> Tensor:
        """Returns the continuous number of steps before a distance from the source."""
        return (distance_mm - self.first_mm[number]) / self.step_mm

    def share_before(self, number: int, stop_mm: float) -> Float[Tensor, " plane"]:
        """Returns the part of each step that lies before a distance from the source."""
        return ((stop_mm - self.distances_mm(number)) / self.step_mm + 0.5).clamp(0, 1)

    def sample(
        self, number: int, x_mm: Float[Tensor, " x_b"], y_mm: Float[Tensor, " y_b"]
    ) -> Float[Tensor, "channel plane y_b x_b"]:
        """Returns the volume where the rays through (x, y) of the isocentre plane cross the planes; zero outside."""
        axes = self.axes[number]
        distance = self.distances_mm(number)[:, None]
        scale = distance / self.sad_mm
        ahead = (self.sad_mm - distance) * axes[2] + self.origin
        if self.level[number]:
            return self._sample_slices((scale * x_mm)[..., None] * axes[0] + ahead[:, None], scale * y_mm * axes[1, 2])
        x_part = (scale * x_mm)[:, None, :, None] * axes[0]
        y_part = (scale * y_mm)[:, :, None, None] * axes[1] + ahead[:, None, None]
        return F.grid_sample(self.volume[None], (x_part + y_part)[None], align_corners=False)[0]

    def _sample_slices(
        self, within: Float[Tensor, "plane x_b 3"], rise: Float[Tensor, "plane y_b"]
    ) -> Float[Tensor, "channel plane y_b x_b"]:
        """Does what `sample` does for y_b parallel to the patient's z, in half the time.

        All rays of one x_b then cross a plane at the same x and y, so that the interpolation separates: bilinear in
        each slice, then linear between slices.

        Args:
            within: positions of the rays with y_b = 0.
            rise: offset along z of the rays of each y_b.
        """
        slices = self.volume.shape[1]
        flat = F.grid_sample(self.volume.flatten(0, 1)[None], within[None, ..., :2], align_corners=False)[0]
        place = ((within[:, :1, 2] + rise + 1) * slices - 1) / 2
        weight = (1 - (place[..., None] - torch.arange(slices, device=place.device)).abs()).clamp(min=0)
        return torch.einsum("pyz,czpx->cpyx", weight, flat.unflatten(0, self.volume.shape[:2]))


def _slant(x_mm: Tensor, y_mm: Tensor, sad_mm: float) -> Float[Tensor, "y_b x_b"]:
    """Returns the path length along a ray per distance along the beam axis."""
    return torch.sqrt(1 + (x_mm**2 + y_mm[:, None] ** 2) / sad_mm**2)


def _ruler(values_mm: Tensor, spacing_mm: float) -> Tensor:
    """Returns the multiples of the spacing that span all values."""
    first, last = math.floor(float(values_mm.min()) / spacing_mm), math.ceil(float(values_mm.max()) / spacing_mm)
    return spacing_mm * torch.arange(first, last + 1, device=values_mm.device)


def _interpolate(volume: Float[Tensor, "channel d h w"], place: Float[Tensor, "*to 3"]) -> Tensor:
    """Interpolates trilinearly at index coordinates (x, y, z); constant beyond the border."""
    size = torch.tensor(volume.shape[:0:-1], device=volume.device)
    return F.grid_sample(volume[None], ((2 * place + 1) / size - 1)[None], padding_mode="border", align_corners=False)[
        0
    ]


def _one(control_points: ControlPoints, number: int) -> ControlPoints:
    return replace(control_points, **{name: value[number : number + 1] for name, value in vars(control_points).items()})
