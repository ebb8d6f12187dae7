"""`vmat commission`: a known beam is found again from what would be measured of it; bad files are one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vmat.benchmarks.dose_accuracy.beam_in_water import WaterTank
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.dose.beam_model import BeamModel, load_beam_model
from lightning_vmat.dose.commissioning.measurements import COLUMNS, read_measurements
from lightning_vmat.dose.commissioning.water import point_dose
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.plan.machine import load_machine

Row = tuple[object, ...]


def doses(model: BeamModel, field_mm: float, ssd_mm: float, depth_mm: np.ndarray, offset_mm: np.ndarray) -> np.ndarray:
    return point_dose(model, field_mm, np.full(len(depth_mm), ssd_mm), depth_mm, offset_mm)


def measured(model: BeamModel, noise: float = 0.0) -> list[Row]:
    """Depth doses in per cent, profiles and output factors."""
    random, rows = np.random.default_rng(0), list[Row]()
    for field in (50.0, 100.0, 200.0):
        depth = np.concatenate((np.arange(0, 30, 3.0), np.arange(30, 305, 10.0)))
        dose = doses(model, field, 1000.0, depth, 0 * depth)
        rows += [("pdd", field, at, "", 1000, 100 * d / dose.max()) for at, d in zip(depth, dose, strict=True)]
    for field, depth_mm in ((100.0, 100.0), (300.0, 50.0), (300.0, 100.0)):
        offset = np.arange(-195, 196, 3.0) * field / 300
        dose = doses(model, field, 900.0, np.full(len(offset), depth_mm), offset)
        rows += [("profile", field, depth_mm, x, 900, d / dose.max()) for x, d in zip(offset, dose, strict=True)]
    sides = np.array([30.0, 50.0, 80.0, 100.0, 150.0, 200.0, 300.0])
    dose = np.array([doses(model, side, 900.0, np.array([100.0]), np.zeros(1))[0] for side in sides])
    rows += [("output_factor", side, 100, "", "", d / dose[3]) for side, d in zip(sides, dose, strict=True)]
    noisy = [(*row[:-1], float(str(row[-1])) * (1 + noise * random.standard_normal())) for row in rows]
    return [*noisy, ("transmission", "", "", "", "", 0.012), ("leaf_gap", "", "", "", "", 1.1)]


def write(path: Path, rows: list[Row]) -> Path:
    lines = ["# a beam", ",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def generic() -> BeamModel:
    return load_beam_model("generic_6mv")


def test_doses_at_points_are_those_of_the_engine(generic: BeamModel) -> None:
    depth = np.arange(20.0, 300.0, 20.0)  # below the build-up, which voxels of 1 mm round off
    for field, isocentre_depth_mm in ((100.0, 0.0), (50.0, 100.0)):
        tank = WaterTank(generic).depth_dose(field, isocentre_depth_mm)
        expected = np.interp(depth, np.arange(len(tank)) + 0.5, tank.numpy())
        found = doses(generic, field, 1000.0 - isocentre_depth_mm, depth, 0 * depth)
        np.testing.assert_allclose(found, expected, rtol=3e-3)


def fff(model: BeamModel) -> BeamModel:
    """A sharper, peaked beam with more build-up and scatter of its head in larger fields."""
    radii = np.arange(0.0, 301.0, 10.0)
    depth = np.arange(model.depth_weights.shape[1])
    weights = model.depth_weights * torch.from_numpy(1 - 0.3 * np.exp(-depth / 6.0))
    peak = 1 / (1 + (radii / 160.0) ** 2)
    return replace(model, depth_weights=weights, off_axis_mm=tuple(radii), off_axis_fluence=tuple(peak))


@pytest.mark.parametrize("kind", ["flattened", "without filter"])
def test_a_known_beam_is_recovered(generic: BeamModel, tmp_path: Path, kind: str) -> None:
    true = generic if kind == "flattened" else fff(generic)
    out = tmp_path / "tb4.yaml"
    data = write(tmp_path / "beam.csv", measured(true))
    options = ["--flattening_filter", str(kind == "flattened").lower(), "--energy_mv", "6"]
    assert main(["commission", str(data), "--out", str(out), *options]) == 0
    machine = load_machine(out)
    assert (machine.name, machine.leaf_transmission, machine.dosimetric_leaf_gap_mm) == ("tb4", 0.012, 1.1)
    assert machine.flattening_filter == (kind == "flattened")
    assert machine.leaf_edges_mm == load_machine("truebeam_millennium120").leaf_edges_mm
    found = load_beam_model(machine.beam_model)
    radii = np.array([30.0, 60.0, 90.0, 130.0])
    for model in (found, true):
        assert model.sad_mm == 1000.0
    horns = [np.interp(radii, model.off_axis_mm, model.off_axis_fluence) for model in (found, true)]
    np.testing.assert_allclose(horns[0], horns[1], atol=0.005)
    depth = np.array([15.0, 50.0, 100.0, 200.0, 300.0])
    for field in (40.0, 100.0, 250.0):  # the first and the last were not measured
        one, other = (doses(model, field, 950.0, depth, np.full(5, 12.0)) for model in (found, true))
        reference = [float(doses(model, 100.0, 1000.0, np.array([100.0]), np.zeros(1))[0]) for model in (found, true)]
        np.testing.assert_allclose(one / reference[0], other / reference[1], rtol=0.006)
    report = (tmp_path / "tb4.html").read_text()
    assert "Residuals" in report and report.count("<svg") == 4
    assert "http" not in report.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_commissioned_machine_doses_a_case(generic: BeamModel, tmp_path: Path) -> None:
    """Its files may be moved together; dose is that of the beam it was measured from."""
    data = write(tmp_path / "beam.csv", measured(generic))
    assert main(["commission", str(data), "--out", str(tmp_path / "tb4.yaml")]) == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("tb4.yaml", "tb4.safetensors"):
        (tmp_path / name).rename(moved / name)
    case = make_phantom(0, "tiny")
    own = case.with_settings(machine_name=str(moved / "tb4.yaml"))
    voxels = case.target.flatten().nonzero()[:200, 0]
    fluence = torch.ones(case.fluence_shape)
    found, expected = (PencilBeamOperator.build(one, voxels).forward(fluence) for one in (own, case))
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


def without(kind: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row for row in rows if row[0] != kind]


def changed(kind: str, column: int, value: object) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        place = next(i for i, row in enumerate(rows) if row[0] == kind)
        row = list(rows[place])
        row[column] = value
        return [*rows[:place], tuple(row), *rows[place + 1 :]]

    return change


BAD: list[tuple[Callable[[list[Row]], list[Row]], str]] = [
    (lambda rows: [], "expected a pdd or tpr of the 10 x 10 cm field"),
    (without("pdd"), "expected a pdd or tpr of the 10 x 10 cm field"),
    (without("profile"), "expected a profile of a field of 200 mm or more"),
    (without("output_factor"), "expected output factors of two fields"),
    (changed("pdd", 0, "PDD"), "line 3: measurement 'PDD', expected one of pdd, tpr"),
    (changed("pdd", 2, "deep"), "line 3: depth_mm is 'deep', expected a number"),
    (changed("pdd", 4, ""), "line 3: ssd_mm is missing, expected it for pdd"),
    (changed("pdd", 4, 100), "line 3: ssd_mm is 100, expected 500 to 1500"),
    (changed("pdd", 5, "nan"), "line 3: value is 'nan', expected a number"),
    (changed("output_factor", 5, 97.0), "value is 97, expected a output_factor above 0 and at most 2"),
    (changed("transmission", 5, 1.2), "value is 1.2, expected a transmission"),
    (lambda rows: [(*row[:4], row[4], 1.0) if row[0] == "pdd" else row for row in rows], "has a TPR20,10 of"),
    (lambda rows: [(*row[:2], row[2], row[3], row[4], 0.5 + float(str(row[5])) / 2) if row[0] == "profile" else row
                   for row in rows], "(rms) from the nearest beam, expected at most 3%"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), BAD)
def test_bad_measurements_are_one_line(
    generic: BeamModel, tmp_path: Path, change: Callable[[list[Row]], list[Row]], named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = write(tmp_path / "beam.csv", change(measured(generic)))
    assert main(["commission", str(data), "--out", str(tmp_path / "out.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vmat: error: {data}") and named in line
    assert {path.name for path in tmp_path.iterdir()} == {"beam.csv"}


@pytest.mark.slow
def test_noise_is_smoothed_and_too_much_refused(
    generic: BeamModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "beam.csv", measured(generic, noise=0.005))
    assert main(["commission", str(data), "--out", str(tmp_path / "tb4.yaml")]) == 0
    found = load_beam_model(tmp_path / "tb4.safetensors")
    horns = [np.interp([30.0, 60.0, 90.0], one.off_axis_mm, one.off_axis_fluence) for one in (found, generic)]
    np.testing.assert_allclose(horns[0], horns[1], atol=0.012)
    write(data, measured(generic, noise=0.08))
    capsys.readouterr()
    assert main(["commission", str(data), "--out", str(tmp_path / "noisy.yaml")]) == 2
    assert "(rms) from the nearest beam" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--out", "x.txt"], "x.txt: expected a YAML file"),
        (["--out", "x.yaml", "--name", "a name of more than sixteen"], "expected 1 to 16 characters"),
        (["--out", "there.yaml"], "there.yaml: exists already, expected a new file; --overwrite"),
        (["--out", "x.yaml", "--machine", "linac"], "machine linac: expected one of"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("")
    assert main(["commission", "beam.csv", *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert named in line


def test_other_files_are_no_measurements_and_no_models(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe\x00", b"depth,dose\n1,2\n"):
        (tmp_path / "beam.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"beam\.csv"):
            read_measurements(tmp_path / "beam.csv")
    (tmp_path / "beam.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"beam\.safetensors: not a readable beam model"):
        load_beam_model(tmp_path / "beam.safetensors")
