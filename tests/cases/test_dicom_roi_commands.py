"""From ROIs to a plan: what became of them stands in the report; what cannot be trusted ends in one line."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dicom_series import FRAME_UID, Points, circle, cylinder, sphere, write_slice, write_structures

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cli import main

HEIGHTS_MM = [-60.0 + 3 * k for k in range(40)]
MR_UID = "1.2.3.99"
TYPES = {"Outer": "EXTERNAL", "Ziel": "PTV", "PTV-Rectum <b>ring</b>": "CONTROL"}
ORGANS = {
    "Rektum": (0.0, 45.0, 16.0),
    "Blase": (0.0, -50.0, 20.0),
    "Femur_L": (75.0, 0.0, 18.0),
    "Femur_R": (-75.0, 0.0, 18.0),
}


def write(folder: Path, more: dict[str, list[Points]], *, outline: bool = True, **options: Any) -> Path:
    """Water, with organs and what else is asked for."""
    for k, height in enumerate(HEIGHTS_MM):
        write_slice(folder / f"{k}", water, (-125.0, -125.0, height), shape=(84, 84), pixel_mm=(3.0, 3.0))
    organs = {name: sphere(r, (x, y, 0), HEIGHTS_MM) for name, (x, y, r) in ORGANS.items()}
    body = {"Outer": cylinder(110.0, (0, 0), HEIGHTS_MM)} if outline else {}
    write_structures(folder / "rs", {**body, **organs, **more}, types=TYPES, **options)
    return folder


def water(points: Points) -> Points:
    return np.where(points[..., 0] ** 2 + points[..., 1] ** 2 < 110**2, 0.0, -1000.0)


def own_protocol(path: Path, **changes: object) -> Path:
    shipped = resources.files("lightning_vmat.objectives") / "protocols" / "prostate_60gy_20fx.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(shipped.read_text()), **changes}))
    return path


def test_a_plan_says_what_became_of_each_roi(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = [circle(r, (0, 0, h)) for h in HEIGHTS_MM if abs(h) < 30 for r in (45.0, 35.0)]
    more = {"PTV-Rectum <b>ring</b>": ring, "Ziel": sphere(25.0, (0, 0, 0), HEIGHTS_MM), "Marker": []}
    folder = write(tmp_path / "patient", more, properties={"Blase": {"REL_ELEC_DENSITY": 1.02}})
    cohort, out = tmp_path / "cohort", tmp_path / "out"
    assert main(["prepare", "dicom", str(folder), "--out", str(cohort), "--size", "tiny", "--jobs", "1"]) == 0
    [case] = cohort.glob("patient_*")
    assert main(["plan", str(case), "--out", str(out), "--planner", "fluence", "--voxels", "300"]) == 0
    rois = json.loads((out / "metrics.json").read_text())["rois"]
    sources = {one["structure"]: (one["roi"], one["how"]) for one in rois["structures"]}
    assert sources["PTV"] == ("Ziel", "type PTV") and sources["Body"] == ("Outer", "type EXTERNAL")
    assert sources["Rectum"] == ("Rektum", "exact name")
    volumes = {one["structure"]: one["contours_cc"] for one in rois["structures"]}
    assert volumes["PTV"] == pytest.approx(65.4, rel=0.01)
    assert {one["roi"]: one["reason"] for one in rois["left_out"]} == {
        "PTV-Rectum <b>ring</b>": "optimization structure",
        "Marker": "no closed contour",
    }
    assert rois["densities"] == [{"roi": "Blase", "density": 1.02, "where": "all of it"}]
    report = (out / "report.html").read_text()
    assert "Structures: from which ROI" in report and "<td>type PTV</td>" in report and "1.02" in report
    assert "PTV-Rectum &lt;b&gt;ring&lt;/b&gt;" in report and "<b>ring" not in report
    assert "PTV: ROI 'Ziel', type PTV" in capsys.readouterr().out


def test_a_protocol_makes_the_target_and_the_ct_the_body(tmp_path: Path) -> None:
    ctv = sphere(18.0, (0, 0, 0), HEIGHTS_MM)
    folder = write(tmp_path / "patient", {"CTV_60": ctv, "PTV": ctv}, outline=False)
    section = {"PTV": {"expand": "CTV", "margin_mm": [7, 7, 6]}, "RectumOut": {"difference": ["Rectum", "PTV"]}}
    protocol = own_protocol(tmp_path / "own.yaml", structures=section)
    out = tmp_path / "out"
    options = ["--protocol", str(protocol), "--size", "tiny", "--planner", "fluence", "--voxels", "300"]
    assert main(["plan", str(folder), "--out", str(out), *options]) == 0
    measured = json.loads((out / "metrics.json").read_text())
    sources = {one["structure"]: one for one in measured["rois"]["structures"]}
    assert sources["Body"]["how"].startswith("automatic: CT above -300 HU") and sources["Body"]["roi"] == ""
    assert sources["PTV"]["how"] == (
        "expand CTV by right 7, left 7, anterior 7, posterior 7, inferior 6, superior 6 mm"
    )
    assert sources["PTV"]["contours_cc"] == pytest.approx(4 / 3 * np.pi * 25 * 25 * 24 / 1000, rel=0.06)
    assert sources["RectumOut"]["contours_cc"] < sources["Rectum"]["contours_cc"]
    assert measured["rois"]["left_out"] == [{"roi": "PTV", "reason": "the protocol makes this structure"}]
    assert "automatic: CT above -300 HU" in (out / "report.html").read_text()


def test_a_target_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = own_protocol(tmp_path / "own.yaml", structures={"PTV": {"expand": "GTV", "margin_mm": 5}})
    assert prepared(write(tmp_path / "a", {}), tmp_path / "out", "--protocol", str(protocol)) == 2
    assert "PTV is made by expand GTV by" in capsys.readouterr().err
    far = {"CTV": sphere(10.0, (0, 0, 50.0), HEIGHTS_MM)}
    protocol = own_protocol(tmp_path / "own.yaml", structures={"PTV": {"expand": "CTV", "margin_mm": 12}})
    assert prepared(write(tmp_path / "b", far), tmp_path / "out", "--protocol", str(protocol)) == 2
    assert "reaches the border of the CT" in capsys.readouterr().err


def prepared(folder: Path, out: Path, *options: str) -> int:
    return main(["prepare", "dicom", str(folder), "--out", str(out), "--size", "tiny", "--jobs", "1", *options])


@pytest.mark.parametrize("order", [(), (FRAME_UID, MR_UID), (MR_UID, FRAME_UID)], ids=["unlisted", "after", "before"])
def test_rois_in_other_coordinates_are_refused_by_name(
    tmp_path: Path, order: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"Ziel": sphere(25.0, (0, 0, 0), HEIGHTS_MM), "Tumor MR": sphere(9.0, (0, 0, 0), HEIGHTS_MM)}
    for name in ("Ziel", "Blase", "Outer"):
        folder = write(tmp_path / name, more, frames={name: MR_UID}, frame_order=order)
        assert prepared(folder, tmp_path / f"no_{name}") == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.endswith(f"ROI '{name}' is in another frame of reference than the CT, expected the CT's")
        assert not (tmp_path / f"no_{name}").exists() or not list((tmp_path / f"no_{name}").glob("patient_*/case.yaml"))
    folder = write(tmp_path / "unused", more, frames={"Tumor MR": MR_UID}, frame_order=order)
    assert prepared(folder, tmp_path / "cohort") == 0  # nothing uses it
    [kept] = (tmp_path / "cohort").glob("patient_*")
    left_out = yaml.safe_load((kept / "rois.yaml").read_text())["left_out"]
    assert left_out == [{"roi": "Tumor MR", "reason": "another frame of reference than the CT"}]


@pytest.mark.parametrize("every", [2, 5])
def test_interpolated_contours_are_contours(tmp_path: Path, every: int) -> None:
    more = {"Ziel": sphere(25.0, (0, 0, 0), HEIGHTS_MM)}
    drawn, mixed = (
        write(tmp_path / name, more, kind=kind)
        for name, kind in (
            ("a", "CLOSED_PLANAR"),
            ("b", lambda index: "INTERPOLATED_PLANAR" if index % every else "CLOSED_PLANAR"),
        )
    )
    cases = []
    for folder in (drawn, mixed):
        assert prepared(folder, folder / "out") == 0
        cases.append(read_case(next((folder / "out").glob("patient_*"))))
    for name, mask in cases[0].structures.items():
        assert bool((mask == cases[1].structures[name]).all())


def test_interpolated_contours_without_corners_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ball = sphere(25.0, (0, 0, 0), HEIGHTS_MM)
    hollow = [points if index % 2 == 0 else points[:2] for index, points in enumerate(ball)]
    kind = lambda index: "INTERPOLATED_PLANAR" if index % 2 else "CLOSED_PLANAR"  # noqa: E731
    assert prepared(write(tmp_path / "a", {"Ziel": hollow}, kind=kind), tmp_path / "out") == 2
    assert "ROI 'Ziel': 8 contours of type INTERPOLATED_PLANAR without coordinates" in capsys.readouterr().err
