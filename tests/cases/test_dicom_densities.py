"""Assigned densities and bolus are what rays see; CT of another unit, and bodies that were not drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from dicom_series import Points, circle, cylinder, sphere, write_slice, write_structures

from lightning_vmat.cases.dicom.patient import DicomPatient, read_patient
from lightning_vmat.cases.dicom.roi_names import load_roi_names
from lightning_vmat.dose.ray_tracing import hounsfield_units, radiological_depth, relative_electron_density

HEIGHTS_MM = [-30.0 + 3 * k for k in range(21)]
TYPES = {"BODY": "EXTERNAL", "PTV": "PTV", "Bolus": "BOLUS", "Couch": "SUPPORT"}
Rois = dict[str, list[Points]]
Properties = dict[str, dict[str, float]]


def scan(points: Points) -> Points:
    """A cylinder of water with metal in it, on a couch top, in the noise of air."""
    x, y = points[..., 0], points[..., 1]
    metal = (x - 20) ** 2 + y**2 < 12**2
    couch = (y > 52) & (y < 56) & (np.abs(x) < 65)
    noise = -980 + 10 * np.sin(7 * x)
    return np.where(metal, 2500.0, np.where(x**2 + y**2 < 50**2, 0.0, np.where(couch, -150.0, noise)))


def write(folder: Path, more: Rois, properties: Properties | None = None, body: bool = True) -> Path:
    for k, height in enumerate(HEIGHTS_MM):
        write_slice(folder / f"{k}", scan, (-72.0, -72.0, height), shape=(96, 96), pixel_mm=(1.5, 1.5))
    outline = {"BODY": cylinder(50.0, (0, 0), HEIGHTS_MM)} if body else {}
    rois = {**outline, "PTV": sphere(15.0, (0, 0, 0), HEIGHTS_MM), **more}
    write_structures(folder / "rs", rois, types=TYPES, properties=properties)
    return folder


def read(folder: Path) -> DicomPatient:
    return read_patient(folder, "prostate_60gy_20fx", load_roi_names(), size="demo")


def depth_mm(patient: DicomPatient) -> np.ndarray:
    """Water-equivalent depth of the voxel nearest to the cylinder's axis, by gantry angle."""
    case = patient.case
    centres = case.grid.centres_mm(torch.arange(case.grid.voxel_count))
    return radiological_depth(case, centres.norm(dim=1).argmin()[None])[:, 0].numpy()


METAL = {"Artefact": cylinder(12.0, (20, 0), HEIGHTS_MM)}


def test_an_artefact_set_to_water_is_water(tmp_path: Path) -> None:
    before = depth_mm(read(write(tmp_path / "a", METAL)))
    patient = read(write(tmp_path / "b", METAL, {"Artefact": {"REL_ELEC_DENSITY": 1.0}}))
    assert before.max() > 65 and depth_mm(patient).max() < 55
    assert depth_mm(patient).mean() == pytest.approx(50, abs=1.0)
    inside = patient.case.hu[patient.case.structures["PTV"]]
    assert float(inside.max()) < 100
    assert [(one.roi, one.density, one.where) for one in patient.rois.densities] == [("Artefact", 1.0, "all of it")]


@pytest.mark.parametrize("density", [0.0, 0.258, 1.0, 1.4, 3.7, 7.0])
def test_densities_are_the_inverse_of_the_curve_of_dose(density: float) -> None:
    value = torch.tensor(density, dtype=torch.double)
    assert float(relative_electron_density(hounsfield_units(value))) == pytest.approx(density, abs=1e-9)


@pytest.mark.parametrize("radius_mm", [60.0, 56.0])
def test_a_virtual_bolus_attenuates_from_where_it_lies(tmp_path: Path, radius_mm: float) -> None:
    """Its contours cross the body, or hold all of it; only what is outside counts."""
    bare = depth_mm(read(write(tmp_path / "a", {})))
    half = circle(radius_mm, (0, 0, 0), 720)
    half = half[half[:, 1] <= 0]  # which passes through the body
    whole = cylinder(radius_mm, (0, 0), HEIGHTS_MM)
    above = [half + np.array([0, 0, height]) for height in HEIGHTS_MM]
    density = {"Bolus": {"REL_ELEC_DENSITY": 1.0}}
    all_round = depth_mm(read(write(tmp_path / "b", {"Bolus": whole}, density))) - bare
    anterior = depth_mm(read(write(tmp_path / "c", {"Bolus": above}, density))) - bare
    assert all_round.mean() == pytest.approx(radius_mm - 50, abs=0.8)
    assert anterior.mean() == pytest.approx((radius_mm - 50) / 2, abs=0.8)
    assert anterior.max() > radius_mm - 53 and anterior.min() < 3


def test_a_density_outside_the_body_attenuates(tmp_path: Path) -> None:
    bare = depth_mm(read(write(tmp_path / "a", {})))
    box = np.array([(-20.0, -64, 0), (20, -64, 0), (20, -54, 0), (-20, -54, 0)])
    rois = {"Applicator": [box + np.array([0, 0, height]) for height in HEIGHTS_MM]}
    added = depth_mm(read(write(tmp_path / "b", rois, {"Applicator": {"REL_ELEC_DENSITY": 0.5}}))) - bare
    assert added.max() == pytest.approx(5.0, abs=1.2)
    assert added.sum() == pytest.approx(5.0 * len(added) * 2 * np.arctan(20 / 59) / (2 * np.pi), rel=0.35)


def test_the_density_of_the_body_is_the_background_of_others(tmp_path: Path) -> None:
    inner = {"Lung": cylinder(10.0, (-25, 0), HEIGHTS_MM)}
    both = {"BODY": {"REL_ELEC_DENSITY": 1.0}, "Lung": {"REL_ELEC_DENSITY": 0.3}}
    case = read(write(tmp_path, inner, both)).case
    points = case.grid.centres_mm(torch.arange(case.grid.voxel_count)).reshape(*case.grid.shape, 3)
    lung = (points[..., 0] + 25).abs().lt(4) & points[..., 1].abs().lt(4)
    metal = (points[..., 0] - 20).abs().lt(4) & points[..., 1].abs().lt(4)
    density = relative_electron_density(case.hu)
    assert bool(lung.any()) and bool(metal.any())
    assert float((density[lung] - 0.3).abs().max()) < 0.15
    torch.testing.assert_close(density[metal], torch.ones_like(density[metal]), atol=1e-4, rtol=0)


OVERLAPPING = {"A": cylinder(10.0, (-10, 0), HEIGHTS_MM), "B": cylinder(10.0, (0, 0), HEIGHTS_MM)}


def test_overlapping_densities_agree_or_are_refused(tmp_path: Path) -> None:
    same = {name: {"REL_ELEC_DENSITY": 1.1} for name in OVERLAPPING}
    assert len(read(write(tmp_path / "a", OVERLAPPING, same)).rois.densities) == 2
    other = {"A": {"REL_ELEC_DENSITY": 1.1}, "B": {"REL_ELEC_DENSITY": 0.9}}
    with pytest.raises(ValueError, match=r"ROIs 'A' and 'B' of relative electron density 1\.1 and 0\.9 overlap"):
        read(write(tmp_path / "b", OVERLAPPING, other))
    beside = {"A": OVERLAPPING["A"], "B": cylinder(10.0, (10, 0), HEIGHTS_MM)}
    assert len(read(write(tmp_path / "c", beside, other)).rois.densities) == 2


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"ELEM_FRACTION": 0.1, "REL_ELEC_DENSITY": 1.0}, "ROI 'Artefact': elemental composition assigned"),
        ({"REL_MASS_DENSITY": 1.0}, "ROI 'Artefact': REL_MASS_DENSITY assigned without REL_ELEC_DENSITY"),
        ({"EFFECTIVE_Z": 7.4}, "EFFECTIVE_Z assigned without"),
        ({"REL_ELEC_DENSITY": -1.0}, "REL_ELEC_DENSITY of -1, expected 0 to 7"),
        ({"REL_ELEC_DENSITY": 12.0}, "REL_ELEC_DENSITY of 12"),
    ],
)
def test_properties_that_dose_cannot_use_are_refused(tmp_path: Path, given: dict[str, float], named: str) -> None:
    write(tmp_path, METAL, {"Artefact": given})
    with pytest.raises(ValueError, match=named) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "rs")) and "\n" not in str(error.value)


def test_mass_density_beside_electron_density_changes_nothing(tmp_path: Path) -> None:
    given = {"Artefact": {"REL_MASS_DENSITY": 1.2, "REL_ELEC_DENSITY": 1.0}}
    assert [one.density for one in read(write(tmp_path, METAL, given)).rois.densities] == [1.0]


def test_a_bolus_in_air_without_a_density_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bolus 'Bolus' lies in air of the CT, expected REL_ELEC_DENSITY"):
        read(write(tmp_path, {"Bolus": cylinder(58.0, (0, 0), HEIGHTS_MM)}))


@pytest.mark.parametrize("couch", [True, False])
def test_a_body_that_was_not_drawn_comes_from_the_ct(tmp_path: Path, couch: bool) -> None:
    """Without the couch top 2 mm below; metal inside, noise outside."""
    more = {"Couch": [np.array([(-65, 52, h), (65, 52, h), (65, 56, h), (-65, 56, h)], float) for h in HEIGHTS_MM]}
    patient = read(write(tmp_path, more if couch else {}, body=False))
    [source] = [one for one in patient.rois.structures if one.structure == "Body"]
    assert source.roi == "" and source.how.startswith("automatic: CT above -300 HU")
    assert source.contours_cc == pytest.approx(np.pi * 2.5 * 63, rel=0.01)
    assert any(note.startswith("Body: automatic") for note in patient.rois.notes())
    assert patient.case.source == "dicom" and "Body" not in patient.roi_names


def change(folder: Path, **values: object) -> None:
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        if data.Modality == "CT":
            for keyword, value in values.items():
                setattr(data, keyword, value)
            data.save_as(path)


@pytest.mark.parametrize("unit", ["ED", "EDW", "Z_EFF", "OD", "HU_MOD", "%EDW"])
def test_ct_of_another_unit_is_refused(tmp_path: Path, unit: str) -> None:
    write(tmp_path, {})
    change(tmp_path, RescaleType=unit)
    with pytest.raises(ValueError, match=f"CT whose pixels are rescaled to {unit}, expected HU"):
        read(tmp_path)


@pytest.mark.parametrize("unit", ["HU", "US", ""])
def test_hounsfield_units_may_be_unnamed(tmp_path: Path, unit: str) -> None:
    write(tmp_path, {})
    change(tmp_path, RescaleType=unit)
    assert float(read(tmp_path).case.hu.min()) == -1000


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"]}, "CT image of type ELECTRON_DENSITY"),
        ({"RescaleSlope": 0}, "rescale slope 0, expected a positive number"),
        ({"RescaleType": "US", "RescaleIntercept": 0}, "unspecified unit"),
    ],
)
def test_images_that_are_no_ct_numbers_are_refused(tmp_path: Path, values: dict[str, object], named: str) -> None:
    write(tmp_path, {})
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=named):
        read(tmp_path)
