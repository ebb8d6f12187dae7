"""matRad and pyRadPlan patients as cases: every voxel in its place, every objective what it was, faults in one line."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matrad_file import (
    BODY,
    BONE_HU,
    CORE,
    CORNER,
    NX,
    NY,
    NZ,
    PTV,
    SPACING_MM,
    WATER_HU,
    StructArray,
    X,
    Y,
    Z,
    cube,
    entry,
    linear,
    patient,
    row,
    write_v5,
    write_v73,
)
from scipy.io import savemat

import lightning_vmat as vmat
from lightning_vmat.cases.case_files import read_case, write_case
from lightning_vmat.cases.matrad.patient import read_patient
from lightning_vmat.cli import main
from lightning_vmat.dose.ray_tracing import relative_electron_density
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.plan.case import Case

Write = Callable[[Path, dict[str, Any]], Path]
CENTRE_MM = (X[8:15].mean(), Y[7:13].mean(), Z[5:10].mean())
FINE = "clinical"  # 2.5 mm: the voxels stay as they are


@pytest.fixture(params=[write_v5, write_v73], ids=["v5", "v7.3"])
def write(request: pytest.FixtureRequest) -> Write:
    found: Write = request.param
    return found


def centre_mm(case: Case, name: str) -> list[float]:
    places = case.structures[name].flatten().nonzero()[:, 0]
    mean: list[float] = case.grid.centres_mm(places).double().mean(dim=0).tolist()
    return mean


def hu_at(case: Case, x_mm: float, y_mm: float, z_mm: float) -> float:
    x, y, z = case.grid.index_coordinates(torch.tensor([x_mm, y_mm, z_mm])).round().long().tolist()
    return float(case.hu[z, y, x])


def lines(path: Path, **settings: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], tuple[str, ...]]:
    """Objectives and goals of a file's own protocol, and notes."""
    read = read_patient(path, size="tiny", **settings)
    document = yaml.safe_load(read.case.protocol)
    return document["objectives"], document["goals"], read.notes


def with_core(objectives: Any, **changes: Any) -> dict[str, Any]:
    """A patient of which only target and core have objectives, the core with priority."""
    cst = [
        row("PTV", "TARGET", PTV, 2, [entry("SquaredDeviation", 1000.0, 50.0)]),
        row("Core", "OAR", CORE, 1, objectives),
        row("Body", "OAR", BODY, 3),
    ]
    return patient(cst=cst, **changes)


def test_every_voxel_is_in_its_place(write: Write, tmp_path: Path) -> None:
    case = read_patient(write(tmp_path / "one.mat", patient()), size=FINE).case
    assert case.grid.spacing_mm == (5.0, 6.0, 7.0)
    for name, box in (("Core", CORE), ("PTV 1", PTV), ("Body", BODY), ("Corner", CORNER)):
        columns, rows, slices = box
        expected = [X[list(columns)].mean(), Y[list(rows)].mean(), Z[list(slices)].mean()]
        assert centre_mm(case, name) == pytest.approx(expected, abs=1e-3)
        assert int(case.structures[name].sum()) == len(columns) * len(rows) * len(slices)
    x, y, z = centre_mm(case, "Corner")
    middle = centre_mm(case, "Body")
    assert x > middle[0] and y < middle[1] and z > middle[2], "left, anterior, superior in LPS"
    assert hu_at(case, x, y, z) == BONE_HU
    mirrored = [2 * m - v for m, v in zip(middle, (x, y, z), strict=True)]
    assert (
        hu_at(case, mirrored[0], y, z) == hu_at(case, x, mirrored[1], z) == hu_at(case, x, y, mirrored[2]) == WATER_HU
    )
    assert case.isocentre_mm == pytest.approx(CENTRE_MM, abs=0.06)
    assert case.case_id == "one" and case.fractions == 30 and case.prescription_gy == {"PTV 1": 50.0}


def test_both_kinds_of_file_read_the_same(tmp_path: Path) -> None:
    cases = [
        read_patient(w(tmp_path / f"{i}.mat", patient()), size="tiny").case for i, w in enumerate((write_v5, write_v73))
    ]
    assert torch.equal(cases[0].hu, cases[1].hu)
    for name, mask in cases[0].structures.items():
        assert torch.equal(mask, cases[1].structures[name])
    one, other = (yaml.safe_load(case.protocol) for case in cases)
    assert one == other


def test_coordinates_without_vectors(write: Write, tmp_path: Path) -> None:
    """The first voxel at `ImagePositionPatient`, else where `matRad_getWorldAxes` puts it."""
    bare = dict.fromkeys("xyz")
    moved = {"dicomInfo": {"ImagePositionPatient": np.array([[1.0], [2.0], [3.0]]), "PatientPosition": "HFS"}}
    read = read_patient(write(tmp_path / "a.mat", patient(**bare, **moved)), size=FINE).case
    expected = [1.0 + 5.0 * np.mean(PTV[0]), 2.0 + 6.0 * np.mean(PTV[1]), 3.0 + 7.0 * np.mean(PTV[2])]
    assert centre_mm(read, "PTV 1") == pytest.approx(expected, abs=1e-3)
    read = read_patient(write(tmp_path / "b.mat", patient(**bare)), size=FINE).case
    first = [-n / 2 * step for n, step in zip((NX, NY, NZ), SPACING_MM, strict=True)]
    expected = [f + s * np.mean(p) for f, s, p in zip(first, SPACING_MM, PTV, strict=True)]
    assert centre_mm(read, "PTV 1") == pytest.approx(expected, abs=1e-3)


def test_a_cube_of_densities(write: Write, tmp_path: Path) -> None:
    density = np.where(cube() > 100, 1.5, np.where(cube() > -500, 1.0, 0.0))
    case = read_patient(write(tmp_path / "d.mat", patient(cubeHU=None, cube=[density])), size=FINE).case
    found = relative_electron_density(case.hu)
    assert float(found[case.structures["Corner"]].sub(1.5).abs().max()) < 1e-3
    assert float(found[~case.structures["Body"]].max()) == 0.0
    both = read_patient(write(tmp_path / "both.mat", patient(cube=[density])), size=FINE).case
    assert float(both.hu[both.structures["Corner"]].mean()) == BONE_HU, "cubeHU counts"


def test_overlap_priorities(tmp_path: Path) -> None:
    """As in matRad, voxels of overlapping structures count for the one of the smaller number only."""
    case = read_patient(write_v5(tmp_path / "o.mat", patient()), size=FINE).case
    masks = case.structures
    assert torch.equal(masks["Core_cropped"], masks["Core"] & ~masks["PTV 1"])
    assert torch.equal(masks["Body_cropped"], masks["Body"] & ~masks["PTV 1"] & ~masks["Core"])
    placed = {line.structure for line in load_protocol(case.protocol).objectives}
    assert placed == {"Core_cropped", "Body_cropped", "PTV 1"}
    named = patient()
    named["cst"][3][1] = "Core_cropped"  # the patient's own by that name stays what it is
    case = read_patient(write_v5(tmp_path / "n.mat", named), size=FINE).case
    assert int(case.structures["Core_cropped"].sum()) == np.prod([len(part) for part in CORNER])
    assert torch.equal(case.structures["Core_cropped_cropped"], masks["Core_cropped"])
    equal = patient()
    for line in equal["cst"]:
        line[4]["Priority"] = 1
    assert not any(
        "cropped" in name for name in read_patient(write_v5(tmp_path / "e.mat", equal), size=FINE).case.structures
    )


def test_a_structure_wholly_covered(tmp_path: Path) -> None:
    inner = (range(9, 13), range(8, 12), range(6, 9))
    cst = [*patient()["cst"], row("Inner", "OAR", inner, 5, [entry("MeanDose", 1.0, 0.0)])]
    _, _, notes = lines(write_v5(tmp_path / "i.mat", patient(cst=cst)))
    assert any(note.startswith("Inner: MeanDose: left out: ") and "cover all of it" in note for note in notes)


@pytest.mark.parametrize(
    ("stored", "expected", "note"),
    [
        (entry("SquaredOverdosing", 7.0, 25.0), [{"type": "squared_overdose", "limit_gy": 25.0, "weight": 7.0}], ""),
        (entry("SquaredUnderdosing", 7.0, 25.0), [{"type": "squared_underdose", "limit_gy": 25.0, "weight": 7.0}], ""),
        (
            entry("SquaredDeviation", 7.0, 25.0),
            [
                {"type": "squared_underdose", "limit_gy": 25.0, "weight": 7.0},
                {"type": "squared_overdose", "limit_gy": 25.0, "weight": 7.0},
            ],
            "",
        ),
        (entry("SquaredDeviation", 7.0, 0.0), [{"type": "squared_overdose", "limit_gy": 0.0, "weight": 7.0}], ""),
        (entry("MeanDose", 7.0), [{"type": "mean", "weight": 210.0}], ""),
        (entry("MeanDose", 7.0, 0.0, 1.0), [{"type": "mean", "weight": 210.0}], ""),
        (entry("MeanDose", 7.0, 0.0, 2.0), [{"type": "geud", "limit_gy": 0.0, "exponent": 1.0, "weight": 7.0}], ""),
        (
            entry("MeanDose", 7.0, 9.0, 2.0),
            [{"type": "geud", "limit_gy": 9.0, "exponent": 1.0, "weight": 7.0}],
            "counts above 9 Gy only, in matRad also below",
        ),
        (entry("MeanDose", 7.0, 9.0, 1.0), [], "left out: distance of the mean from 9 Gy"),
        (
            entry("EUD", 7.0, 12.0, 3.5),
            [{"type": "geud", "limit_gy": 12.0, "exponent": 3.5, "weight": 7.0}],
            "counts above 12 Gy only",
        ),
        (entry("EUD", 7.0, 0.0, -10.0), [], "left out: exponent -10, expected 1 to 50"),
        (
            entry("MaxDVH", 7.0, 20.0, 30.0),
            [{"type": "max_dvh", "limit_gy": 20.0, "volume_fraction": 0.3, "weight": 7.0}],
            "",
        ),
        (
            entry("MinDVH", 7.0, 20.0, 95.0),
            [{"type": "min_dvh", "limit_gy": 20.0, "volume_fraction": 0.95, "weight": 7.0}],
            "",
        ),
        (entry("DoseVariance", 7.0), [], "left out: no such objective here"),
        ({**entry("MeanDose", 7.0), "className": "LETdObjectives.matRad_MeanDose"}, [], "left out: no such objective"),
        (entry("SquaredOverdosing", 0.0, 25.0), [], "left out: its penalty is 0"),
        (
            {**entry("SquaredOverdosing", 7.0, 25.0), "robustness": "VWWC"},
            [{"type": "squared_overdose", "limit_gy": 25.0, "weight": 7.0}],
            "robustness VWWC left out",
        ),
    ],
)
def test_objectives(
    stored: dict[str, Any], expected: list[dict[str, Any]], note: str, write: Write, tmp_path: Path
) -> None:
    objectives, _, notes = lines(write(tmp_path / "o.mat", with_core([stored])))
    core = [
        {k: v for k, v in line.items() if k not in ("structure", "name")}
        for line in objectives
        if line["structure"] == "Core"
    ]
    assert core == expected
    mine = [text for text in notes if text.startswith("Core: ")]
    assert (len(mine) == 1 and note in mine[0]) if note else mine == []


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("square overdosing", {"dose": 25.0}, ["squared_overdose"]),
        ("square underdosing", {"dose": 25.0}, ["squared_underdose"]),
        ("square deviation", {"dose": 25.0}, ["squared_underdose", "squared_overdose"]),
        ("mean", {}, ["mean"]),
        ("EUD", {"dose": 12.0, "EUD": 3.0}, ["geud"]),
        ("EUD", {"EUD": 3.0}, []),
        ("max DVH objective", {"dose": 25.0, "volume": 10.0}, ["max_dvh"]),
        ("min DVH objective", {"dose": 25.0, "volume": 10.0}, ["min_dvh"]),
        ("max dose constraint", {"dose": 25.0}, []),
        ("some objective", {"dose": 25.0}, []),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_objectives_before_version_2_10(
    kind: str, fields: dict[str, float], expected: list[str], count: int, write: Write, tmp_path: Path
) -> None:
    """A struct, or an array of them."""
    old = {
        "type": kind,
        "penalty": 7.0,
        "dose": math.nan,
        "EUD": math.nan,
        "volume": math.nan,
        "robustness": "none",
        **fields,
    }
    stored = old if count == 1 else StructArray([old] * count)
    objectives, _, notes = lines(write(tmp_path / "o.mat", with_core(stored)))
    core = [line for line in objectives if line["structure"] == "Core"]
    assert [line["type"] for line in core] == expected * count
    assert all(line.get("limit_gy", fields.get("dose")) == fields.get("dose") for line in core)
    assert bool(notes) == (not expected or kind == "EUD")


@pytest.mark.parametrize(
    ("stored", "goals"),
    [
        (entry("MinMaxDose", None, 0.0, 40.0, 1.0), [{"measure": "max", "at_most": 40.0}]),
        (entry("MinMaxDose", None, 30.0, math.inf), [{"measure": "D100", "at_least": 30.0}]),
        (entry("MinMaxMeanDose", None, 0.0, 20.0), [{"measure": "mean", "at_most": 20.0}]),
        (entry("MinMaxDVH", None, 20.0, 0.0, 35.0), [{"measure": "V20gy", "at_most": 0.35}]),
        (entry("MinMaxEUD", None, 3.0, 0.0, 35.0), []),
        (entry("MaxDVH", 7.0, 20.5, 30.0), [{"measure": "V20.5gy", "at_most": 0.3}]),
    ],
)
def test_constraints_and_dose_volume_points_become_goals(
    stored: dict[str, Any], goals: list[dict[str, Any]], write: Write, tmp_path: Path
) -> None:
    objectives, found, notes = lines(write(tmp_path / "o.mat", with_core([stored])))
    assert [
        {k: v for k, v in goal.items() if k != "structure"} for goal in found if goal["structure"] == "Core"
    ] == goals
    if "penalty" not in stored:
        assert not any(line["structure"] == "Core" for line in objectives)
        assert any("a goal" in note for note in notes) if goals else any("left out" in note for note in notes)


def test_penalties_weigh_as_in_matrad(tmp_path: Path) -> None:
    """matRad's sum over the doses of one fraction, times the fractions squared, is ours over those of the course."""
    fractions, dose = 20, torch.tensor([10.0, 30.0, 44.0])
    stored = [entry("SquaredOverdosing", 3.0, 25.0), entry("MeanDose", 2.0), entry("EUD", 5.0, 0.0, 2.0)]
    pln = {"numOfFractions": float(fractions)}
    case = read_patient(write_v5(tmp_path / "w.mat", with_core(stored, pln=pln)), size="tiny").case
    voxels = vmat.StructureVoxels(
        torch.arange(3), torch.full((3,), 1 / 3), torch.ones(3), torch.zeros(1, 3), torch.tensor([50.0])
    )
    ours = sum(
        float(line.weight * line.objective(dose, voxels))
        for line in load_protocol(case.protocol).objectives
        if line.structure == "Core"
    )
    one = dose / fractions
    over = (one - 25.0 / fractions).clamp(min=0).square().mean()
    theirs = 3.0 * over + 2.0 * one.mean() + 5.0 * one.square().mean()
    assert case.fractions == fractions
    assert ours == pytest.approx(float(theirs) * fractions**2, rel=1e-5)


def as_pyradplan(path: Path) -> Path:
    """As `pyRadPlan.io` writes it: lengths along x, y, z, rows and objectives as lists, doses of a fraction."""
    over = {
        "name": "Squared Overdosing",
        "penalty": 300.0,
        "quantity": "physical_dose",
        "dMax": 1.0,
        "parameters": [1.0],
    }
    mean = {"name": "Mean Dose", "penalty": 2.0, "quantity": "physical_dose", "parameters": [0.0, "quadratic"]}
    eud = {"name": "EUD", "penalty": 4.0, "quantity": "physical_dose", "parameters": [0.5, 0.25, "quadratic"]}
    deviation = {"name": "Squared Deviation", "penalty": 900.0, "quantity": "physical_dose", "parameters": [2.0]}
    voxels = [np.empty(1, object) for _ in range(3)]
    for cell, box in zip(voxels, (CORE, PTV, BODY), strict=True):
        cell[0] = linear(box)
    about = [{"alphaX": 0.1, "betaX": 0.05, "Priority": priority} for priority in (0, 5, 15)]
    cst = [
        [0, "Core", "OAR", voxels[0], about[0], [over, mean, eud]],
        [1, "PTV", "TARGET", voxels[1], about[1], [deviation]],
        [2, "Outside", "EXTERNAL", voxels[2], about[2], []],
    ]
    hu = np.empty(1, object)
    hu[0] = cube()
    ct = {
        "cubeHU": hu,
        "cubeDim": np.array([NX, NY, NZ], float),
        "resolution": dict(zip("xyz", SPACING_MM, strict=True)),
        "origin": (X[0], Y[0], Z[0]),
        "direction": tuple(np.eye(3).ravel()),
        "x": np.append(X, X[-1] + SPACING_MM[0]),  # numpy.arange may round to one more
        "y": Y,
        "z": Z,
    }
    pln = {"numOfFractions": 25, "doseConvention": "per_fraction", "propStf": {"isoCenter": np.array(CENTRE_MM)}}
    savemat(path, {"ct": ct, "cst": cst, "pln": pln})
    return path


def test_files_of_pyradplan(tmp_path: Path) -> None:
    path = as_pyradplan(tmp_path / "p.mat")
    case = read_patient(path, size=FINE).case
    for name, box in (("Core", CORE), ("PTV", PTV), ("Body", BODY)):
        expected = [axis[list(part)].mean() for axis, part in zip((X, Y, Z), box, strict=True)]
        assert centre_mm(case, name) == pytest.approx(expected, abs=1e-3)
    assert case.prescription_gy == {"PTV": 50.0} and case.fractions == 25
    assert case.isocentre_mm == pytest.approx(CENTRE_MM, abs=1e-3)
    core = [line for line in yaml.safe_load(case.protocol)["objectives"] if line["structure"] == "Core"]
    assert [(line["type"], line.get("limit_gy"), line.get("exponent"), line["weight"]) for line in core] == [
        ("squared_overdose", 25.0, None, 300.0),
        ("geud", 0.0, 1.0, 2.0),
        ("geud", 12.5, 4.0, 4.0),  # its exponent is the inverse of matRad's
    ]


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (4.0, -3.0, 2.0)])
def test_isocentres_of_old_and_new_matrad(shift: tuple[float, ...], write: Write, tmp_path: Path) -> None:
    place = np.asarray(CENTRE_MM) + shift
    old = place - [X[0], Y[0], Z[0]] + SPACING_MM  # voxel number, from 1, times resolution
    stf = StructArray([{"gantryAngle": angle, "isoCenter": place[None]} for angle in (0.0, 90.0)])
    variants: list[dict[str, Any]] = [
        {"pln": {"numOfFractions": 10.0, "propStf": {"isoCenter": np.stack([place, place])}}},
        {"pln": {"isoCenter": old[None]}},
        {"stf": stf},
    ]
    for number, variant in enumerate(variants):
        path = write(tmp_path / f"{number}.mat", patient(**variant))
        assert read_patient(path, size="tiny").case.isocentre_mm == pytest.approx(place, abs=1e-3)
        centre = read_patient(path, size=FINE, use_isocentre=False).case.isocentre_mm
        assert centre == pytest.approx(CENTRE_MM, abs=0.06)
    apart = {"pln": {"propStf": {"isoCenter": np.stack([place, place + 5])}}}
    with pytest.raises(ValueError, match=r"pln\.propStf\.isoCenter: 2 beams about different isocentres"):
        read_patient(write(tmp_path / "apart.mat", patient(**apart)), size="tiny")
    far = {"pln": {"propStf": {"isoCenter": place + 500}}}
    with pytest.raises(ValueError, match=r"neither lies at the targets; --use_isocentre false"):
        read_patient(write(tmp_path / "far.mat", patient(**far)), size="tiny")


def test_a_body_from_the_ct(tmp_path: Path) -> None:
    cst = [line for line in patient()["cst"] if line[1] != "BODY"]
    read = read_patient(write_v5(tmp_path / "b.mat", patient(cst=cst)), size=FINE)
    columns, rows, slices = BODY
    assert int(read.case.structures["Body"].sum()) == len(columns) * len(rows) * len(slices)
    assert any(note.startswith("Body: no outline in cst") for note in read.notes)


def test_a_shipped_protocol_in_place_of_the_objectives(tmp_path: Path) -> None:
    cst = [
        row("PTV", "TARGET", PTV, 1, [entry("SquaredDeviation", 1000.0, 50.0)]),
        row("Rectum", "OAR", CORE, 2),
        row("Blase", "OAR", CORNER, 2),
        row("Lt femoral head", "OAR", (range(19, 21), range(9, 11), range(4, 6)), 2),
        row("Rt femoral head", "OAR", (range(2, 4), range(9, 11), range(4, 6)), 2),
        row("Something", "OAR", CORNER, 2),
        row("BODY", "OAR", BODY, 3),
    ]
    read = read_patient(write_v5(tmp_path / "b.mat", patient(cst=cst)), "prostate_60gy_20fx", size="tiny")
    assert read.case.prescription_gy == {"PTV": 60.0} and read.case.fractions == 20
    assert set(read.case.structures) == {"PTV", "Rectum", "Bladder", "FemoralHeadLeft", "FemoralHeadRight", "Body"}
    assert read.notes == ("Something: left out: no structure of the protocol has its name or type",)
    with pytest.raises(ValueError, match=r"b\.mat: no ROI for PTV70 or PTV63 or PTV56 among 'PTV', 'Rectum'"):
        read_patient(tmp_path / "b.mat", "head_and_neck_70gy_35fx", size="tiny")


def changed_row(column: int, value: Any, line: int = 0) -> dict[str, Any]:
    found = patient()
    found["cst"][line][column] = value
    return found


SKEWED = np.append(Z[:-1], Z[-1] + 3)
FAULTS: list[tuple[dict[str, Any], str]] = [
    (patient(cubeHU=None), "ct has neither cubeHU nor cube"),
    (patient(resolution=None), r"ct\.resolution is missing"),
    (patient(resolution={"x": 5.0, "y": 6.0, "z": -7.0}), r"ct\.resolution is 5 x 6 x -7 mm"),
    (patient(cubeDim=np.array([[NX, NY, NZ + 1]])), r"ct\.cubeHU of shape \(20, 24, 16\), expected ct\.cubeDim"),
    (patient(cubeHU=[np.full((NY, NX, NZ), np.nan)]), r"ct\.cubeHU holds NaN"),
    (patient(cubeHU=[np.where(cube() > -500, 1.0, 0.0)]), r"ct\.cubeHU of 0 to 1, expected CT numbers: .* densities"),
    (patient(cubeHU=None, cube=[cube()]), r"ct\.cube of -1000 to 500, expected electron densities"),
    (
        patient(z=SKEWED[None]),
        r"ct\.z from 110 to 218 mm is 218 mm at voxel 16, expected even, ascending steps of 7 mm",
    ),
    (patient(z=Z[None, ::-1]), r"ct\.z from 215 to 110 mm .* ascending"),
    (patient(x=X[None, :-3]), r"ct\.x holds 21 coordinates, expected 24"),
    (patient(dicomInfo={"ImageOrientationPatient": np.array([-1.0, 0, 0, 0, -1, 0])}), "expected rows along x"),
    (patient(dicomInfo={"PatientPosition": "HFDL"}), r"PatientPosition is not one of HFS"),
    (patient(cst=np.zeros((0, 6))), "cst is a .*empty"),
    (patient(cst=[one[:4] for one in patient()["cst"]]), "cst row 1 has 4 columns"),
    (changed_row(1, 3.0), r"cst\{1,2\} is a .*expected the structure's name"),
    (changed_row(2, "ORGAN"), r"cst\{1,3\} of 'Core' is 'ORGAN', expected one of TARGET"),
    (
        changed_row(3, [np.array([[1.0], [NX * NY * NZ + 1.0]])]),
        r"cst\{1,4\} of 'Core' holds voxels 1 to 7681, .* 1 to 7680",
    ),
    (changed_row(3, [np.array([[0.0], [5.0]])]), r"cst\{1,4\} of 'Core' holds voxels 0 to 5"),
    (changed_row(3, [np.array([[1.5], [5.0]])]), r"cst\{1,4\} of 'Core' holds voxels 1\.5 to 5"),
    (changed_row(4, {"alphaX": 0.1}), r"cst\{1,5\} of 'Core' has no Priority"),
    (changed_row(5, [{"penalty": 1.0, "dose": 2.0}]), r"cst\{1,6\}\{1\} of 'Core' has no className, type or name"),
    (changed_row(5, [entry("SquaredOverdosing", -1.0, 25.0)]), r"SquaredOverdosing: penalty is -1"),
    (
        changed_row(5, [entry("SquaredOverdosing", 1.0)]),
        r"cst\{1,6\}\{1\} of 'Core': SquaredOverdosing: dose is nan Gy",
    ),
    (changed_row(5, [entry("MaxDVH", 1.0, 25.0, 110.0)]), r"MaxDVH: volume is 110 %"),
    (
        changed_row(5, [entry("SquaredOverdosing", 1.0, 25.0)], line=1),
        r"cst: no TARGET \(there: PTV 1\) with an objective",
    ),
    (changed_row(2, "OAR", line=1), r"cst: no TARGET \(there: none\)"),
    (
        patient(cst=[*patient()["cst"], *(row(name, "EXTERNAL", BODY, 9) for name in ("Skin", "Outer"))]),
        "cst: Skin, Outer are all the patient's outline, expected one",
    ),
    (patient(pln={"numOfFractions": 2.5}), r"pln\.numOfFractions is 2\.5"),
    (patient(pln={"numOfFractions": 5.0, "doseConvention": "daily"}), r"pln\.doseConvention is 'daily'"),
]


@pytest.mark.parametrize(("variables", "message"), FAULTS)
def test_faults_are_named_in_one_line(variables: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_patient(write_v5(tmp_path / "odd.mat", variables), size="tiny")
    assert "odd.mat" in str(caught.value) and "\n" not in str(caught.value)


def test_objects_that_only_matlab_can_read(tmp_path: Path) -> None:
    import h5py

    path = write_v73(tmp_path / "object.mat", patient())
    with h5py.File(path, "r+") as file:
        cell = file["cst"][5, 0]
        data = file[file[cell][0, 0]]
        name = data.name
        del file[name]
        file[name] = np.zeros((1, 6), np.uint32)
        file[name].attrs["MATLAB_object_decode"] = np.int32(3)
        file[name].attrs["MATLAB_class"] = np.bytes_("DoseObjectives.matRad_MeanDose")
        links = file[cell]
        links[0, 0] = file[name].ref
    with pytest.raises(
        ValueError, match=r"is an object of DoseObjectives\.matRad_MeanDose, expected struct\(objective\)"
    ):
        read_patient(path, size="tiny")


def test_broken_files(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mat", patient())
    (tmp_path / "cut.mat").write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.mat"):
        read_patient(tmp_path / "cut.mat")
    with pytest.raises(ValueError, match=r"absent\.mat"):
        read_patient(tmp_path / "absent.mat")
    savemat(tmp_path / "other.mat", {"a": 1})
    with pytest.raises(ValueError, match="no variable ct"):
        read_patient(tmp_path / "other.mat")


def test_from_file_to_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, a case that moves with its protocol, and a plan of it."""
    (tmp_path / "in").mkdir()
    stored = with_core([entry("SquaredOverdosing", 300.0, 25.0), entry("MinMaxDose", None, 0.0, 40.0)])
    write_v5(tmp_path / "in/TG119.mat", stored)
    (tmp_path / "in/broken.mat").write_bytes(b"nothing")
    assert (
        main(["prepare", "matrad", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size=tiny", "--jobs=1"])
        == 1
    )
    printed = capsys.readouterr()
    assert "TG119: Core: MinMaxDose: a goal by which the plan is judged" in printed.out
    assert "left out broken: " in printed.err and "broken.mat" in printed.err
    assert set(yaml.safe_load((tmp_path / "out/left_out.yaml").read_text())) == {"broken"}
    shutil.move(tmp_path / "out/TG119", tmp_path / "moved")
    shutil.rmtree(tmp_path / "in")
    case = read_case(tmp_path / "moved")
    assert case.protocol == str(tmp_path / "moved/protocol.yaml") and case.source == "matrad"
    write_case(case, tmp_path / "copy")
    shutil.rmtree(tmp_path / "moved")
    copied = read_case(tmp_path / "copy")
    assert load_protocol(copied.protocol).prescription_gy == {"PTV": 50.0}
    command = [
        "plan",
        str(tmp_path / "copy"),
        "--out",
        str(tmp_path / "plan"),
        "--planner=conventional",
        "--voxels=300",
    ]
    assert main(command) == 0
    assert "Core max" in capsys.readouterr().out
    assert (tmp_path / "plan/report.html").is_file()


def test_python_entrance(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "one.mat", patient())
    case = vmat.read_matrad(path, size="tiny")
    assert "own protocol" in repr(case) and "own protocol" in case._repr_html_()
    assert vmat.read_case(path, reader="matrad").case_id == "one"
    result = vmat.planner("fluence", voxels=300).plan(case)
    assert vmat.evaluate_plan(case, result).dose_gy.shape == case.grid.shape


def test_one_name_for_two_files(tmp_path: Path) -> None:
    for name in ("a b.mat", "a_b.mat"):
        write_v5(tmp_path / name, patient())
    assert main(["prepare", "matrad", str(tmp_path), "--out", str(tmp_path / "out"), "--jobs=1"]) == 2
    assert not (tmp_path / "out").exists()
    assert main(["prepare", "matrad", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
