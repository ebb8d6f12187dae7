"""Masks have the volume of their contours, wherever planes lie and however contours lie in one another."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_series import Points, circle, cylinder, sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vmat.cases.dicom.contour_groups import grouped
from lightning_vmat.cases.dicom.contour_slabs import slabs
from lightning_vmat.cases.dicom.contour_volume import checked_volume_cc, roi_mask
from lightning_vmat.cases.dicom.contours import contours_mask, slabs_mask
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.plan.volume import VolumeGrid

Z_MM = 5.0


def grid(step_mm: float = 3.0, pixel_mm: float = 1.0) -> VolumeGrid:
    across, along = round(100 / pixel_mm), round(90 / step_mm)
    return VolumeGrid((along, across, across), (pixel_mm, pixel_mm, step_mm), (-49.7, -50.2, -45.0))


def drawn(voxels: VolumeGrid, shift_mm: float = 0.0, every: float = 1.0) -> list[float]:
    """Heights of planes: on the slices, shifted, or farther or nearer to one another."""
    step = voxels.spacing_mm[2] * every
    return [voxels.origin_mm[2] + shift_mm + step * k for k in range(int(voxels.shape[0] / every))]


def cc(mask: np.ndarray, voxels: VolumeGrid) -> float:
    return float(mask.sum()) * voxels.voxel_volume_cc


@pytest.mark.parametrize("share", [0.5, -0.5, 0.49, 0.503, -0.497, 0.5033, 0.25, 0.0])
@pytest.mark.parametrize("step_mm", [1.25, 2.0, 3.0, 5.0])
def test_planes_between_slices_lose_nothing(step_mm: float, share: float) -> None:
    voxels = grid(step_mm)
    heights = [round(height, 2) for height in drawn(voxels, share * step_mm)]
    ball = sphere(18.0, (2.0, 1.0, 0.0), heights)
    mask = contours_mask(ball, voxels)
    assert mask.any(axis=(1, 2)).sum() == len(ball)  # a slice for each plane
    own = sum(np.pi * np.hypot(points[0, 0] - 2, points[0, 1] - 1) ** 2 * step_mm / 1000 for points in ball)
    assert cc(mask, voxels) == pytest.approx(own, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1.0, 1.5, 2.5, 3.0]),
    st.floats(-1, 1),
    st.sampled_from([1 / 3, 0.5, 0.8, 1.0, 1.2, 2.0, 3.0]),
    st.floats(15, 30),
)
def test_spheres_have_their_volume_on_any_planes(step_mm: float, share: float, every: float, radius_mm: float) -> None:
    voxels = grid(step_mm)
    mask, own_cc = roi_mask(
        Roi("a", "", sphere(radius_mm, (1.0, 0, 3.0), drawn(voxels, share * step_mm, every))), voxels
    )
    true_cc = 4 / 3 * np.pi * radius_mm**3 / 1000
    coarse = 0.13 * (step_mm * max(every, 1.0) / radius_mm)
    assert own_cc == pytest.approx(true_cc, rel=0.01 + coarse) and cc(mask, voxels) == pytest.approx(
        own_cc, rel=0.02 + coarse
    )


def test_a_part_drawn_on_every_slice_and_a_part_on_every_third_make_a_whole() -> None:
    voxels = grid()
    heights = drawn(voxels)
    mask = contours_mask(cylinder(12.0, (0, 0), [*heights[4:10], *heights[12:22:3]]), voxels)
    assert np.array_equal(np.flatnonzero(mask.any(axis=(1, 2))), np.arange(4, 23))  # half of three slices at the end


def test_islands_stay_apart_and_first_and_last_slices_are_kept() -> None:
    voxels = grid()
    heights = drawn(voxels)
    beside = (
        cylinder(6.0, (-20, 0), heights[:3])
        + cylinder(6.0, (20, 0), heights[5:6])
        + cylinder(6.0, (20, 0), heights[-2:])
    )
    mask = contours_mask(beside, voxels)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [0, 1, 2, 5, 28, 29]


@pytest.mark.parametrize("shift_mm", [-1.5, 1.5])
def test_the_first_and_last_plane_half_a_slice_off(shift_mm: float) -> None:
    voxels = grid()
    mask = contours_mask(cylinder(6.0, (0, 0), drawn(voxels, shift_mm)), voxels)
    assert mask.any(axis=(1, 2)).sum() >= voxels.shape[0] - 1


def test_a_structure_thinner_than_a_slice_is_kept() -> None:
    voxels = grid(5.0)
    disc = cylinder(10.0, (0, 0), [1.6, 2.1, 2.6, 3.1])  # slices at 0 and 5
    assert contours_mask(disc, voxels).any(axis=(1, 2)).sum() == 1


def test_sparse_planes_are_refused() -> None:
    voxels = grid()
    with pytest.raises(ValueError, match=r"contours 15\.0 mm apart on slices 3\.0 mm apart"):
        contours_mask(cylinder(12.0, (0, 0), drawn(voxels)[2::5]), voxels)


def area(contours: list[Points], exclusive: bool = False, pixel_mm: float = 0.25) -> float:
    """Area of one plane, mm2, on fine pixels."""
    count = round(100 / pixel_mm)
    voxels = VolumeGrid((1, count, count), (pixel_mm, pixel_mm, 3.0), (-50.03, -49.98, Z_MM))
    return float(contours_mask(contours, voxels, exclusive).sum()) * pixel_mm**2


def disc(x: float, radius: float, y: float = 0.0) -> Points:
    return circle(radius, (x, y, Z_MM), 360)


def lens(distance: float, radius: float) -> float:
    half = distance / 2
    return float(2 * radius**2 * np.arccos(half / radius) - half * np.sqrt(4 * radius**2 - distance**2))


@pytest.mark.parametrize("distance", [0.5, 2.0, 10.0, 20.0, 39.0])
def test_crossing_contours_are_united(distance: float) -> None:
    expected = 2 * np.pi * 400 - lens(distance, 20)
    assert area([disc(-distance / 2, 20), disc(distance / 2, 20)]) == pytest.approx(expected, rel=0.005)


CASES: dict[str, tuple[list[Points], float]] = {
    "hole": ([disc(0, 20), disc(3, 10)], np.pi * 300),
    "island in the hole": ([disc(0, 20), disc(0, 12), disc(1, 5)], np.pi * (400 - 144 + 25)),
    "two beside": ([disc(-20, 10), disc(20, 10)], np.pi * 200),
    "hole in what two share": ([disc(-8, 20), disc(8, 20), disc(0, 6)], 2 * np.pi * 400 - lens(16, 20) - np.pi * 36),
    "hole in one of two": ([disc(-12, 20), disc(12, 20), disc(-20, 5)], 2 * np.pi * 400 - lens(24, 20) - np.pi * 25),
    "two holes that cross": ([disc(0, 30), disc(-4, 8), disc(4, 8)], np.pi * 900 - 2 * np.pi * 64 + lens(8, 8)),
    "crossing island in a hole": (
        [disc(0, 40), disc(0, 30), disc(-5, 10), disc(5, 10)],
        np.pi * 700 + 2 * np.pi * 100 - lens(10, 10),
    ),
    "drawn twice, another way round": ([disc(0, 20), np.roll(disc(0, 20)[::-1], 7, axis=0)], np.pi * 400),
    "drawn twice with other corners": ([disc(0, 20), circle(20, (0, 0, Z_MM), 100)], np.pi * 400),
    "hole that touches": ([disc(0, 20), disc(10, 10)], np.pi * 300),
}


@pytest.mark.parametrize("name", CASES)
def test_contours_of_a_plane(name: str) -> None:
    contours, expected = CASES[name]
    assert area(contours) == pytest.approx(expected, rel=0.005)
    assert area(contours[::-1]) == pytest.approx(expected, rel=0.005)
    stacked = [points + np.array([0, 0, 3.0 * k]) for k in range(-3, 4) for points in contours]
    mask, own_cc = roi_mask(Roi("a", "", stacked), voxels := grid())
    assert own_cc == pytest.approx(expected * 21 / 1000, rel=0.01)
    assert cc(mask, voxels) == pytest.approx(own_cc, rel=0.05)


def keyhole(turned: bool) -> Points:
    outer, inner = disc(0, 20), disc(0, 10)
    return np.concatenate((outer, outer[:1], inner[:1], inner[::-1] if turned else np.roll(inner, -1, axis=0)))


@pytest.mark.parametrize("turned", [True, False])
def test_a_keyhole_beside_other_contours(turned: bool) -> None:
    ring = np.pi * 300
    assert area([keyhole(turned)]) == pytest.approx(ring, rel=0.005)
    assert area([keyhole(turned), disc(0, 5)]) == pytest.approx(ring + np.pi * 25, rel=0.005)
    assert area([keyhole(turned), disc(-35, 10)]) == pytest.approx(ring + np.pi * 100, rel=0.005)


def test_exclusive_contours_stay_exclusive() -> None:
    both = [disc(-10, 20), disc(10, 20)]
    assert area(both, exclusive=True) == pytest.approx(2 * np.pi * 400 - 2 * lens(20, 20), rel=0.005)


def test_a_hole_across_what_two_contours_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cross at z = 5\.0 mm"):
        grouped([disc(-10, 20), disc(10, 20), disc(0, 12)])


def test_contours_with_thousands_of_corners_are_compared() -> None:
    assert len(grouped([circle(30, (x, 0, 0), 4000) for x in (-1, 1)])) == 1
    assert len(grouped([circle(30, (0, 0, 0), 4000), circle(29, (0, 0, 0), 4000)])) == 2


@pytest.mark.parametrize("kept", [range(0), range(0, 30, 2), range(14, 16)], ids=["nothing", "every second", "two"])
def test_a_mask_far_from_its_contours_is_refused(kept: range) -> None:
    voxels = grid()
    found = slabs(sphere(16.0, (0, 0, 0), drawn(voxels)), voxels.spacing_mm[2])
    mask = slabs_mask(found, voxels)
    assert checked_volume_cc(mask, found, voxels) == pytest.approx(17.2, rel=0.02)
    mask[[index for index in range(voxels.shape[0]) if index not in kept]] = False
    with pytest.raises(ValueError, match=r"cc on the CT's voxels, expected the 17\.\d+ cc of its contours"):
        checked_volume_cc(mask, found, voxels)


def test_what_is_smaller_than_a_voxel_may_be_lost() -> None:
    voxels = grid(pixel_mm=3.0)
    mask, own_cc = roi_mask(Roi("marker", "", [circle(0.4, (0.9, 0.9, 0.0))]), voxels)
    assert not mask.any() and 0 < own_cc < 0.002
