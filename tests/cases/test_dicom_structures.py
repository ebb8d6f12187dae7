"""Contours become the voxels whose centres they hold; ROI names become structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dicom_series import Points, circle, sphere, write_structures
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vmat.cases.dicom.contours import contours_mask, fill
from lightning_vmat.cases.dicom.roi_names import load_roi_names, plain
from lightning_vmat.cases.dicom.rtstruct import Roi, read_structure_set
from lightning_vmat.plan.volume import VolumeGrid

PROSTATE = {"PTV": 60.0}
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0]])


def grid(spacing_mm: tuple[float, float, float] = (1.0, 1.0, 2.0), extent_mm: float = 80.0) -> VolumeGrid:
    nx, ny, nz = (round(extent_mm / step) for step in spacing_mm)
    return VolumeGrid((nz, ny, nx), spacing_mm, (-extent_mm / 2 + 0.13, -extent_mm / 2 - 0.21, -extent_mm / 2 + 0.4))


def heights(voxels: VolumeGrid) -> list[float]:
    return [voxels.origin_mm[2] + k * voxels.spacing_mm[2] for k in range(voxels.shape[0])]


def volume_cc(mask: np.ndarray, voxels: VolumeGrid) -> float:
    return float(mask.sum()) * voxels.voxel_volume_cc


OFFSETS_MM = np.random.default_rng(7).uniform(-3.0, 3.0, size=(40, 3))


def sphere_errors(radius_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Relative error of a drawn sphere's volume at many places between voxels."""
    voxels, true_cc = grid(spacing_mm), 4 / 3 * np.pi * radius_mm**3 / 1000
    masks = (contours_mask(sphere(radius_mm, place, heights(voxels)), voxels) for place in OFFSETS_MM)
    return np.array([volume_cc(mask, voxels) / true_cc - 1 for mask in masks])


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.9766, 0.9766, 1.5), (0.8, 1.2, 1.0)])
@pytest.mark.parametrize("radius_mm", [10.0, 14.0, 30.0])
def test_spheres_have_their_volume(radius_mm: float, spacing_mm: tuple[float, float, float]) -> None:
    assert np.abs(sphere_errors(radius_mm, spacing_mm)).max() < 0.01


@pytest.mark.parametrize(("step_mm", "radius_mm"), [(2.0, 12.0), (2.5, 18.0), (3.0, 20.0)])
def test_thick_slices_hold_larger_spheres(step_mm: float, radius_mm: float) -> None:
    assert np.abs(sphere_errors(radius_mm, (0.9766, 0.9766, step_mm))).max() < 0.01


@pytest.mark.parametrize(("step_mm", "worst"), [(2.0, 0.016), (2.5, 0.022), (3.0, 0.024)])
def test_thick_slices_sample_a_small_sphere_without_bias(step_mm: float, worst: float) -> None:
    """Half a dozen slices are a sum, not an integral: it errs by `3 h^2 / (2 pi^2 R^2)` and more, to both sides."""
    errors = sphere_errors(10.0, (0.9766, 0.9766, step_mm))
    assert abs(errors.mean()) < 0.003 and np.abs(errors).max() < worst


@pytest.mark.parametrize("step_mm", [1.5, 3.0])
def test_a_drawn_sphere_holds_the_voxels_whose_centres_it_holds(step_mm: float) -> None:
    """So the error of its volume is that of counting voxels, which no other mask at voxel centres betters."""
    voxels = grid((0.9766, 0.9766, step_mm))
    centres = voxels.centres_mm(torch.arange(voxels.voxel_count)).double().numpy().reshape(*voxels.shape, 3)
    for place in OFFSETS_MM[:5]:
        distance = np.linalg.norm(centres - place, axis=-1)
        contours = [circle(float(np.sqrt(100 - (z - place[2]) ** 2)), (*place[:2], z), 1800)
                    for z in heights(voxels) if abs(z - place[2]) < 10]  # fmt: skip
        wrong = contours_mask(contours, voxels) != (distance < 10)
        assert np.abs(distance[wrong] - 10).max(initial=0.0) < 1e-3


def test_a_contour_within_a_contour_is_a_hole() -> None:
    voxels = grid()
    outer, inner = (sphere(r, (0.0, 0.0, 0.0), heights(voxels)) for r in (25.0, 12.0))
    shell = contours_mask(outer + inner, voxels)
    assert np.array_equal(shell, contours_mask(outer, voxels) & ~contours_mask(inner, voxels))


def test_a_keyhole_is_the_same_hole() -> None:
    voxels = grid()
    z = heights(voxels)[20]
    outer, inner = circle(25.0, (0, 0, z)), circle(12.0, (0, 0, z))
    keyhole = np.concatenate((outer, outer[:1], inner[:1], inner[::-1]))  # out along the channel, back along it
    assert np.array_equal(contours_mask([keyhole], voxels), contours_mask([outer, inner], voxels))


def test_a_contour_drawn_twice_counts_once() -> None:
    voxels = grid()
    ball = sphere(15.0, (0.0, 0.0, 0.0), heights(voxels))
    assert np.array_equal(contours_mask(ball + ball, voxels), contours_mask(ball, voxels))


def test_direction_and_first_corner_do_not_matter() -> None:
    voxels = grid()
    ball = sphere(15.0, (3.0, 0.0, 0.0), heights(voxels))
    turned = [np.roll(points[::-1], 31, axis=0) for points in ball]
    assert np.array_equal(contours_mask(turned, voxels), contours_mask(ball, voxels))


def test_structures_reach_beyond_the_ct() -> None:
    voxels = grid(extent_mm=40.0)
    beyond = [-40.0 + 2 * k + 0.4 for k in range(41)]
    mask = contours_mask(sphere(30.0, (10.0, 0.0, 0.0), beyond), voxels)
    points = np.stack(np.meshgrid(*(np.arange(20), np.arange(40), np.arange(40)), indexing="ij"), axis=-1)
    x, y, z = (voxels.origin_mm[a] + voxels.spacing_mm[a] * points[..., 2 - a] for a in range(3))
    assert (mask == ((x - 10) ** 2 + y**2 + z**2 < 900)).mean() > 0.999


def test_sparse_planes_are_filled_and_islands_are_not() -> None:
    voxels = grid()
    every_third = heights(voxels)[1::3]
    ball = sphere(25.0, (0.0, 0.0, 0.0), every_third)
    assert volume_cc(contours_mask(ball, voxels), voxels) == pytest.approx(4 / 3 * np.pi * 25**3 / 1000, rel=0.03)
    islands = [circle(10.0, (0, 0, heights(voxels)[k])) for k in (5, 25)]
    assert contours_mask(islands, voxels).any(axis=(1, 2)).sum() == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 12)), min_size=3, max_size=9))
def test_fill_is_even_odd_at_voxel_centres(corners: list[tuple[float, float]]) -> None:
    polygon = np.array([(x + 0.0317, y + 0.0291, 0.0) for x, y in corners])  # off the centres
    voxels = VolumeGrid((1, 9, 11), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    expected = [[parity(polygon, float(x), float(y)) for x in range(11)] for y in range(9)]
    assert np.array_equal(fill([polygon], voxels), np.array(expected))


def parity(polygon: Points, x: float, y: float) -> bool:
    """Crossings of the ray towards -x, one edge at a time."""
    inside = False
    for (x0, y0, _), (x1, y1, _) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x:
            inside = not inside
    return inside


def test_only_areas_are_read(tmp_path: Path) -> None:
    marker = np.array([[1.0, 2.0, 3.0]])
    path = write_structures(
        tmp_path / "rs.dcm",
        {
            "PTV_60": [circle(5, (0, 0, 0)), marker],
            "Isocentre": [marker],
            "Empty": [],
            "Line": [circle(5, (0, 0, 0), 2)],
        },
    )
    found = read_structure_set(path)
    assert [(roi.name, len(roi.contours)) for roi in found.rois] == [("PTV_60", 1)]
    assert found.frame_uids == ["1.2.3.1"] and sorted(found.empty) == ["Empty", "Isocentre", "Line"]
    open_lines = write_structures(tmp_path / "lines.dcm", {"PTV": [circle(5, (0, 0, 0))]}, kind="OPEN_PLANAR")
    with pytest.raises(ValueError, match="no structure with a closed contour"):
        read_structure_set(open_lines)


@pytest.mark.parametrize(
    ("corner", "named"), [((1.0, 2.0, 5.0), "along z"), ((float("nan"), 0.0, 0.0), "NaN")], ids=["tilted", "nan"]
)
def test_contours_that_make_no_area_are_refused(corner: tuple[float, float, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        contours_mask([np.concatenate((circle(5, (0, 0, 0)), [corner]))], grid())


def roi(name: str, kind: str = "ORGAN") -> Roi:
    return Roi(name, kind, [SQUARE])


@pytest.mark.parametrize(
    ("given", "structure"),
    [
        ("PTV_60", "PTV"),
        ("prostate ptv", "PTV"),
        ("PTV 60 Gy", "PTV"),
        ("PTV Prostata", "PTV"),
        ("Rektum", "Rectum"),
        ("RECTUM", "Rectum"),
        ("Blase", "Bladder"),
        ("Harnblase", "Bladder"),
        ("Hüftkopf li.", "FemoralHeadLeft"),
        ("Femur_Head_R", "FemoralHeadRight"),
        ("Bowel_Bag", "Bowel"),
    ],
)
def test_usual_names_are_known(given: str, structure: str) -> None:
    rois = [roi("BODY"), roi(given)] + ([roi("PTV")] if structure != "PTV" else [])
    assert load_roi_names().assign(rois, PROSTATE)[structure].name == given


def test_names_are_compared_plainly() -> None:
    assert plain(" PTV_60-Gy (Prostáta) ") == "ptv60gyprostata"


def test_types_help_where_names_do_not() -> None:
    found = load_roi_names().assign([roi("Umriss", "EXTERNAL"), roi("Zielvolumen", "PTV"), roi("zzz")], PROSTATE)
    assert {name: one.name for name, one in found.items()} == {"Body": "Umriss", "PTV": "Zielvolumen"}


def test_the_prescribed_dose_tells_two_targets_apart() -> None:
    rois = [roi("BODY"), roi("PTV_48"), roi("PTV_60")]
    assert load_roi_names().assign(rois, PROSTATE)["PTV"].name == "PTV_60"
    boost = load_roi_names().assign([roi("External"), roi("PTV 70"), roi("PTV5600")], {"PTV70": 70.0, "PTV56": 56.0})
    assert boost["PTV56"].name == "PTV5600"


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["BODY", "Rectum"], "no ROI for PTV"),
        (["BODY", "PTV", "Rectum", "rectum"], "all fit Rectum"),
        (["BODY", "PTV_a", "PTV_b"], "all fit PTV"),
    ],
)
def test_what_is_missing_or_ambiguous_is_named(names: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_roi_names().assign([roi(name) for name in names], PROSTATE)


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    content = {"body": ["a"], "targets": {"PTV": ["b"]}, "structures": {"Rectum": ["c"]}, "support": ["d.*"]}
    path.write_text(yaml.safe_dump(content))
    names, rois = load_roi_names(path), [roi(name) for name in ("A", "B", "C", "D-1")]
    assert {name: one.name for name, one in names.assign(rois, PROSTATE).items()} == {
        "Body": "A",
        "PTV": "B",
        "Rectum": "C",
    }
    assert [one.name for one in names.supports(rois)] == ["D-1"]


@pytest.mark.parametrize("text", ["[", "{}", "body: [a]", "{body: ['('], targets: {}, structures: {}, support: []}"])
def test_a_broken_mapping_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"names\.yaml: not (YAML|a mapping of ROI names)"):
        load_roi_names(path)
