"""Dose wash, isodose lines and structure contours over CT, on slices of the three planes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, to_hex
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_vmat.export.figures.palette import DOSE_COLOURS, StructureStyle, isodose_lines
from lightning_vmat.export.figures.paths import UNITS_PER_MM, contour_path, image_address
from lightning_vmat.plan.case import BODY, Case

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
LETTERS = {"axial": "ARPL", "coronal": "HRFL", "sagittal": "HAFP"}  # top, left, bottom, right
WINDOW_HU = (-160.0, 240.0)
MAX_PIXELS = 288
WASH_TOP = 1.1  # of the highest prescription
WASH_START = (0.10, 0.25)  # the wash fades in between these fractions of the prescription
WASH_OPACITY = 0.5
SHOWN_DOSE = 0.05  # of the highest prescription: views are cropped to this dose and to the structures
DIFFERENCE_TOP = 0.1  # of the highest prescription
DIFFERENCE_START = (0.004, 0.015)  # the wash of a difference fades in between these fractions of the prescription
DIFFERENCE_COLOURS = LinearSegmentedColormap.from_list(
    "difference", ["#4fc3ff", "#0072b2", "#ffffff", "#d3310b", "#ffb08a"]
)
_MARGIN_MM = 15.0


@dataclass(frozen=True)
class SliceView:
    """One slice, in units of 0.1 mm from its top left corner.

    Args:
        position_mm: distance from the isocentre along the normal of the plane (LPS).
        at: position of the slice in the coronal and sagittal views, from their top.
        ct: data URI of the CT image.
        wash: data URI of the dose wash.
        isodoses: SVG path by index of the isodose level.
        contours: SVG path by structure name.
    """

    position_mm: float
    at: int
    ct: str
    wash: str
    isodoses: dict[int, str]
    contours: dict[str, str]


@dataclass(frozen=True)
class PlaneView:
    """The slices of a plane.

    Args:
        plane: name of the plane.
        letters: patient directions at the top, left, bottom and right edge.
        size: width and height, units of 0.1 mm.
        isocentre: position of the isocentre from the top left corner.
        slices: all slices.
        central: index of the slice through the isocentre.
    """

    plane: Plane
    letters: str
    size: tuple[int, int]
    isocentre: tuple[int, int]
    slices: tuple[SliceView, ...]
    central: int


@dataclass(frozen=True)
class SlicedCase:
    """CT and structures of a case, cropped to the shown box, for drawing slices of any dose.

    Args:
        case: the case.
        box: shown voxels z, y, x.
        hu: CT numbers in the box.
        masks: structures in the box.
        still: CT image and contours by (axis, index), which no dose changes.
    """

    case: Case
    box: tuple[slice, slice, slice]
    hu: NDArray[np.float32]
    masks: dict[str, NDArray[np.bool_]]
    still: dict[tuple[int, int], tuple[str, dict[str, str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, dose_gy: Float[Tensor, "z y x"], styles: Mapping[str, StructureStyle]) -> SlicedCase:
        """The case within the box of a dose and of the structures to draw."""
        box = _shown_box(case, dose_gy.to(case.hu.device))
        masks = {name: case.structures[name].cpu().numpy()[box] for name in styles}
        return cls(case, box, case.hu.cpu().float().numpy()[box], masks)

    def view(self, plane: Plane, slices: tuple[SliceView, ...] = ()) -> PlaneView:
        """Size, letters and isocentre of a plane, with the slices given; `central` counts all slices of the box."""
        axis = PLANES.index(plane)
        spacing, isocentre = tuple(reversed(self.case.grid.spacing_mm)), self.isocentre_voxel()
        rows, columns = (other for other in range(3) if other != axis)
        height, width = self.hu.shape[rows], self.hu.shape[columns]
        across = (isocentre[columns] + 0.5) * spacing[columns]
        down = (isocentre[rows] + 0.5) * spacing[rows]
        if plane != "axial":
            down = height * spacing[rows] - down  # head at the top
        return PlaneView(
            plane=plane,
            letters=LETTERS[plane],
            size=(round(UNITS_PER_MM * width * spacing[columns]), round(UNITS_PER_MM * height * spacing[rows])),
            isocentre=(round(UNITS_PER_MM * across), round(UNITS_PER_MM * down)),
            slices=slices,
            central=min(max(round(isocentre[axis]), 0), self.hu.shape[axis] - 1),
        )

    def slice(
        self,
        plane: Plane,
        index: int,
        dose_gy: Float[Tensor, "z y x"],
        other_gy: Float[Tensor, "z y x"] | None = None,
    ) -> SliceView:
        """One slice with its images and lines.

        Args:
            plane: name of the plane.
            index: number of the slice in the box, from 0.
            dose_gy: dose of the whole course.
            other_gy: another dose; the wash then shows the first less this one.
        """
        axis = PLANES.index(plane)
        spacing = tuple(reversed(self.case.grid.spacing_mm))
        rows, columns = (other for other in range(3) if other != axis)
        pixel_mm = (spacing[columns], spacing[rows])
        dose = self._dose(dose_gy, axis, index)
        highest_gy = max(self.case.prescription_gy.values())
        if other_gy is None:
            wash = _wash(_zoom(dose, pixel_mm), highest_gy)
        else:
            wash = _difference_wash(_zoom(dose - self._dose(other_gy, axis, index), pixel_mm), highest_gy)
        ct, contours = self._still(axis, index, pixel_mm)
        return SliceView(
            position_mm=(index - self.isocentre_voxel()[axis]) * spacing[axis],
            at=round(UNITS_PER_MM * (self.hu.shape[0] - index - 0.5) * spacing[0]),
            ct=ct,
            wash=image_address(wash, quality=60),
            isodoses={
                i: contour_path(dose, line.dose_gy, pixel_mm)
                for i, line in enumerate(isodose_lines(self.case))
                if dose.max() > line.dose_gy
            },
            contours=contours,
        )

    def _dose(self, dose_gy: Float[Tensor, "z y x"], axis: int, index: int) -> NDArray[np.float32]:
        cut: NDArray[np.float32] = _cut(dose_gy.cpu().float().numpy()[self.box], axis, index)
        return cut

    def _still(self, axis: int, index: int, pixel_mm: tuple[float, float]) -> tuple[str, dict[str, str]]:
        """CT image and contours of a slice, made once."""
        if (axis, index) not in self.still:
            cuts = {name: _cut(mask, axis, index) for name, mask in self.masks.items()}
            self.still[axis, index] = (
                image_address(_grey(_zoom(_cut(self.hu, axis, index), pixel_mm))),
                {name: contour_path(cut, 0.5, pixel_mm) for name, cut in cuts.items() if cut.any()},
            )
        return self.still[axis, index]

    def isocentre_voxel(self) -> tuple[float, float, float]:
        """Isocentre in voxels z, y, x of the box; voxel centres are whole numbers."""
        grid, case = self.case.grid, self.case
        x, y, z = ((case.isocentre_mm[i] - grid.origin_mm[i]) / grid.spacing_mm[i] for i in range(3))
        return z - self.box[0].start, y - self.box[1].start, x - self.box[2].start


def dose_planes(
    case: Case, dose_gy: Float[Tensor, "z y x"], styles: Mapping[str, StructureStyle]
) -> tuple[PlaneView, ...]:
    """Axial slices through the whole body, and the coronal and sagittal slice through the isocentre."""
    sliced = SlicedCase.of(case, dose_gy, styles)
    views = []
    for axis, plane in enumerate(PLANES):
        middle = sliced.view(plane).central
        chosen = range(sliced.hu.shape[axis]) if plane == "axial" else [middle]
        view = sliced.view(plane, tuple(sliced.slice(plane, index, dose_gy) for index in chosen))
        views.append(view if plane == "axial" else replace(view, central=0))
    return tuple(views)


def wash_gradient() -> str:
    """Colours of the wash from zero to its top, as CSS gradient stops."""
    return ", ".join(to_hex(DOSE_COLOURS(i / 16)) for i in range(17))


def difference_gradient() -> str:
    """Colours of the wash of a difference, from less to more dose, as CSS gradient stops."""
    return ", ".join(to_hex(DIFFERENCE_COLOURS(i / 16)) for i in range(17))


def _shown_box(case: Case, dose_gy: Float[Tensor, "z y x"]) -> tuple[slice, slice, slice]:
    """The shown box: all slices of the body, and in-plane all dose and structures with a margin."""
    body = case.structures[BODY] | case.target
    wanted = body & (dose_gy > SHOWN_DOSE * max(case.prescription_gy.values()))
    for name, mask in case.structures.items():
        wanted = wanted | mask if name != BODY else wanted
    spans = []
    for axis, spacing_mm in enumerate(reversed(case.grid.spacing_mm)):
        region = wanted | case.target if axis else body
        hit = region.any(dim=tuple(other for other in range(3) if other != axis)).nonzero()[:, 0]
        margin = math.ceil(_MARGIN_MM / spacing_mm) if axis else 0
        spans.append(slice(max(0, int(hit[0]) - margin), min(body.shape[axis], int(hit[-1]) + 1 + margin)))
    return spans[0], spans[1], spans[2]


def _cut(volume: NDArray[Any], axis: int, index: int) -> NDArray[Any]:
    """A slice with the patient's front or head at the top."""
    image: NDArray[Any] = volume.take(index, axis=axis)
    return image if axis == 0 else image[::-1]


def _zoom(image: NDArray[np.float32], pixel_mm: tuple[float, float]) -> NDArray[np.float32]:
    """Resample to square pixels, at most `MAX_PIXELS` along the longer side."""
    extent_mm = image.shape[1] * pixel_mm[0], image.shape[0] * pixel_mm[1]
    size_mm = max(max(extent_mm) / MAX_PIXELS, min(pixel_mm) / 3)
    size = (max(1, round(extent_mm[0] / size_mm)), max(1, round(extent_mm[1] / size_mm)))
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _grey(hu: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = WINDOW_HU
    grey: NDArray[np.uint8] = np.rint(255 * ((hu - low) / (high - low)).clip(0, 1)).astype(np.uint8)
    return grey


def _wash(dose_gy: NDArray[np.float32], prescription_gy: float) -> NDArray[np.uint8]:
    """Dose as colour, transparent where it is low."""
    relative = dose_gy / prescription_gy
    colours = DOSE_COLOURS(relative / WASH_TOP)
    start, full = WASH_START
    colours[..., 3] = WASH_OPACITY * ((relative - start) / (full - start)).clip(0, 1)
    wash: NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
    return wash


def _difference_wash(difference_gy: NDArray[np.float32], prescription_gy: float) -> NDArray[np.uint8]:
    """A dose difference as colour, blue where the first dose is lower and red where it is higher."""
    relative = difference_gy / prescription_gy
    colours = DIFFERENCE_COLOURS(0.5 + 0.5 * (relative / DIFFERENCE_TOP).clip(-1, 1))
    start, full = DIFFERENCE_START
    colours[..., 3] = 0.75 * ((np.abs(relative) - start) / (full - start)).clip(0, 1)
    wash: NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
    return wash
