"""A patient's folder as clinics have it: fine pixels, a couch, strange names, any position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_series import Points, circle, sphere, write_slice, write_structures

from lightning_vmat.cases.coarsening import block_mean, coarse_grid, coarse_mask, coarsening, crop_box
from lightning_vmat.cases.dicom.patient import DicomPatient, read_patient
from lightning_vmat.cases.dicom.roi_names import load_roi_names
from lightning_vmat.plan.beamlets import project_to_bev
from lightning_vmat.plan.volume import VolumeGrid

PROTOCOL = "prostate_60gy_20fx"
HEIGHTS_MM = [-40.0 + 2.5 * k for k in range(33)]
TYPES = {"Outline": "EXTERNAL", "Table top": "SUPPORT"}


def pelvis(points: Points) -> Points:
    """Water, a couch below it and a pillow beside it."""
    x, y = points[..., 0], points[..., 1]
    body = (x / 70) ** 2 + (y / 50) ** 2 < 1
    return np.where(body, 10.0, np.where((y > 55) & (y < 62), -300.0, np.where(y < -30, -850.0, -1000.0)))


def ellipse(height_mm: float) -> Points:
    return circle(1.0, (0, 0, 0)) * np.array([70, 50, 0]) + np.array([0, 0, height_mm])


def box(x: Sequence[float], y: Sequence[float], height_mm: float) -> Points:
    corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
    return np.array([(a, b, height_mm) for a, b in corners], float)


def write_patient(folder: Path, *, target_mm: Sequence[float] = (8.0, 4.0, 1.0), position: str = "HFS") -> Path:
    for k, height in enumerate(HEIGHTS_MM):
        write_slice(
            folder / "ct" / f"{k}",
            pelvis,
            (-84.0, -69.0, height),
            shape=(138, 112),
            pixel_mm=(1.0, 1.5),
            patient_position=position,
        )
    rois = {
        "Outline": [ellipse(height) for height in HEIGHTS_MM],
        "PTV_6000": sphere(20.0, target_mm, HEIGHTS_MM),
        "Blase": sphere(15.0, (0.0, -25.0, 10.0), HEIGHTS_MM),
        "Rektum": [],
        "Table top": [box((-60, 60), (55, 62), height) for height in HEIGHTS_MM],
        "zz help": sphere(9.0, (0, 0, 0), HEIGHTS_MM),
    }
    write_structures(folder / "rs", rois, types=TYPES)
    return folder


def read(folder: Path) -> DicomPatient:
    return read_patient(folder, PROTOCOL, load_roi_names(), size="demo")


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> DicomPatient:
    return read(write_patient(tmp_path_factory.mktemp("patient")))


def test_structures_come_by_name_and_type(patient: DicomPatient) -> None:
    assert patient.roi_names == {"Body": "Outline", "PTV": "PTV_6000", "Bladder": "Blase"}
    assert set(patient.case.structures) == {"Body", "PTV", "Bladder"}
    assert (patient.case.prescription_gy, patient.case.fractions) == ({"PTV": 60.0}, 20)


def test_the_planning_grid_is_coarser_and_keeps_volumes_and_places(patient: DicomPatient) -> None:
    grid = patient.case.grid
    assert grid.spacing_mm == (4.5, 5.0, 5.0)
    ptv = patient.case.structures["PTV"]
    assert int(ptv.sum()) * grid.voxel_volume_cc == pytest.approx(4 / 3 * np.pi * 8, rel=0.03)
    centre = grid.centres_mm(ptv.flatten().nonzero()[:, 0]).mean(dim=0)
    torch.testing.assert_close(centre, torch.tensor([8.0, 4.0, 1.0]), atol=0.5, rtol=0)
    assert patient.case.isocentre_mm == pytest.approx((8.0, 4.0, 1.0), abs=0.6)


def test_what_is_outside_the_body_is_air_but_for_the_couch(patient: DicomPatient) -> None:
    case = patient.case
    points = case.grid.centres_mm(torch.arange(case.grid.voxel_count)).reshape(*case.grid.shape, 3)
    inside = (points[..., 0] / 64) ** 2 + (points[..., 1] / 44) ** 2 < 1
    couch = (points[..., 1] - 58.5).abs().lt(2.6) & (points[..., 0].abs() < 55)
    beside = (points[..., 1] < -36) & (points[..., 0].abs() > 58)  # in the pillow
    assert (case.hu[inside] == 10).all() and couch.any() and beside.any()
    assert case.hu[couch].mean() == pytest.approx(-300, abs=150)
    assert (case.hu[beside] == -1000).all()


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_an_arc_begins_below_the_couch_however_the_patient_lies(tmp_path: Path, position: str) -> None:
    case = read(write_patient(tmp_path, position=position)).case
    below = 1.0 if position in ("HFS", "FFS") else -1.0  # LPS y points to the back, which is up when prone
    axes = case.control_points.beam_axes()
    assert float(axes[0, 2] @ torch.tensor([0.0, below, 0.0])) > 0.99  # the source is under the couch
    ptv = case.grid.centres_mm(case.structures["PTV"].flatten().nonzero()[:, 0])
    bev, _ = project_to_bev(ptv, case.control_points, case.isocentre_mm, case.machine.sad_mm)
    assert float(bev.abs().max()) < 30


def test_a_large_target_gets_a_field_of_its_own(tmp_path: Path) -> None:
    write_patient(tmp_path)
    far = [box((-45, 45), (-10, 10), height) for height in HEIGHTS_MM]
    write_structures(tmp_path / "rs", {"Outline": [ellipse(h) for h in HEIGHTS_MM], "PTV": far}, types=TYPES)
    case = read(tmp_path).case
    assert case.beamlets.shape[0] * 2 * 5 >= 80 and case.beamlets.shape[1] * 10 >= 90


@pytest.mark.parametrize(
    ("rois", "named"),
    [
        ({"Outline": [ellipse(h) for h in HEIGHTS_MM]}, "no ROI for PTV among 'Outline'"),
        ({"PTV": sphere(9.0, (0, 0, 0), HEIGHTS_MM), "BODY": [ellipse(900.0)]}, "'BODY' for Body lies outside the CT"),
        (
            {"BODY": [ellipse(h) for h in HEIGHTS_MM], "PTV": sphere(9.0, (0, 0, 40), [30.0, 40.0, 45.0, 48.0])},
            "'PTV' for PTV reaches beyond the CT",
        ),
    ],
    ids=["no target", "body elsewhere", "target beyond"],
)
def test_structures_that_make_no_case_are_named(tmp_path: Path, rois: dict[str, list[Points]], named: str) -> None:
    write_patient(tmp_path)
    write_structures(tmp_path / "rs", rois, types=TYPES)
    with pytest.raises(ValueError, match=named) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "rs"))


def test_an_organ_may_reach_beyond_the_ct(tmp_path: Path) -> None:
    write_patient(tmp_path)
    beyond = [*HEIGHTS_MM, *(HEIGHTS_MM[-1] + 2.5 * k for k in range(1, 9))]
    rois = {
        "Outline": [ellipse(h) for h in beyond],
        "PTV": sphere(20.0, (8.0, 4.0, 1.0), HEIGHTS_MM),
        "Blase": [circle(15.0, (1.3, -20.4, h)) for h in beyond[20:]],
        "Rektum": [circle(60.0, (40.0, 10.0, h)) for h in HEIGHTS_MM[5:9]],  # sideways out of the image
    }
    write_structures(tmp_path / "rs", rois, types=TYPES)
    case = read(tmp_path).case
    assert set(case.structures) == {"Body", "PTV", "Bladder", "Rectum"}
    on_ct_cc = np.pi * 1.5**2 * 3.0  # twelve of its slices; the thirteenth makes no whole voxel with another
    assert int(case.structures["Bladder"].sum()) * case.grid.voxel_volume_cc == pytest.approx(on_ct_cc, rel=0.02)
    assert bool(case.structures["Rectum"].any())


def test_two_structure_sets_and_lying_on_the_side_are_refused(tmp_path: Path) -> None:
    write_patient(tmp_path / "side", position="HFDL")
    with pytest.raises(ValueError, match="'HFDL': expected one of HFS"):
        read(tmp_path / "side")
    write_structures(tmp_path / "side" / "rs2", {"PTV": [ellipse(0.0)]})
    with pytest.raises(ValueError, match="2 RTSTRUCT files"):
        read(tmp_path / "side")


def test_blocks_are_centred_on_their_voxels() -> None:
    grid = VolumeGrid((7, 10, 11), (1.0, 1.2, 3.0), (5.0, 6.0, 7.0))
    block = coarsening(grid, 3.1)
    assert block == (1, 3, 3)
    x = grid.centres_mm(torch.arange(grid.voxel_count))[:, 0].reshape(grid.shape).numpy()
    cut = crop_box((x > 8.5) & (x < 13.5), block)
    coarse = coarse_grid(grid, cut, block)
    means = block_mean(x, cut, block)
    expected = coarse.centres_mm(torch.arange(coarse.voxel_count))[:, 0].reshape(coarse.shape).numpy()
    np.testing.assert_allclose(means, expected, atol=1e-5)


@pytest.mark.parametrize("block", [(1, 1, 1), (2, 4, 4), (3, 5, 5)])
@pytest.mark.parametrize("radius_mm", [4.0, 10.0, 20.0])
def test_coarse_masks_keep_their_volume(block: tuple[int, int, int], radius_mm: float) -> None:
    z, y, x = np.mgrid[:48, :60, :60] * np.array([1.5, 1.0, 1.0]).reshape(3, 1, 1, 1)
    rng = np.random.default_rng(0)
    for cz, cy, cx in rng.uniform(28, 32, size=(8, 3)):
        mask = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < radius_mm**2
        box = (slice(0, 48), slice(0, 60), slice(0, 60))
        coarse = coarse_mask(mask, box, block)
        assert abs(int(coarse.sum()) - mask.sum() / np.prod(block)) <= 0.5
        assert coarse[block_mean(mask, box, block) > 0.9].all()
        assert not coarse[block_mean(mask, box, block) < 0.1].any()
