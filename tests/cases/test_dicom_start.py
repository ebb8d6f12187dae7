"""`vmat plan --start`: an existing arc plan is exactly where planning begins; one that does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from clinical_plan import JAWS_MM, TOTAL_MU, half_width_mm, weights, write_clinical_plan
from pydicom.dataset import Dataset

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.start import start_plan
from lightning_vmat.cli import main
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.planning.evaluation import body_objective

SIZE = ["--size", "tiny"]
PLAN = ["--voxels", "1000", "--overwrite", "true"]


def metrics(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "metrics.json").read_text())
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom as DICOM, as a cohort's case, its reference plan, and a clinical plan of it."""
    root = tmp_path_factory.mktemp("start")
    patients, cohort = root / "patients", root / "cohort"
    make = ["prepare", "phantom", "--as_dicom", "true", "--count", "1", "--jobs", "1", "--out", str(patients)]
    assert main([*make, *SIZE]) == 0
    assert main(["prepare", "dicom", str(patients), "--out", str(cohort), "--jobs", "1", *SIZE]) == 0
    next(cohort.glob("patient_*")).rename(root / "case")
    assert main(["plan", str(root / "case"), "--out", str(root / "reference"), *PLAN]) == 0
    clinical(root)
    return root


def clinical(root: Path, name: str = "clinical.dcm", **options: object) -> Path:
    source = root / "patients" / "phantom_0000" / "RTSTRUCT.dcm"
    isocentre_mm = read_case(root / "case").isocentre_mm
    return write_clinical_plan(root / name, source, isocentre_mm, **options)


def test_a_clinical_arc_is_read_as_it_is_delivered(root: Path) -> None:
    plan = read_rtplan(clinical(root, "late.dcm", beam_on_at=3))
    [arc], [motion] = plan.arcs, plan.motions
    assert (arc.gantry_start_deg, arc.gantry_stop_deg, arc.control_points) == (182.0, 176.0, 177)
    assert arc.span_deg == 354.0 and arc.collimator_deg == 30.0
    expected_mu = np.diff(weights(3)) / weights(3)[-1] * TOTAL_MU
    np.testing.assert_allclose(motion.mu, expected_mu, atol=1e-4)
    assert (motion.mu[:3] == 0).all() and motion.mu[3] > 0
    middle = [(half_width_mm(k) + half_width_mm(k + 1)) / 2 + 0.25 for k in range(177)]
    np.testing.assert_allclose(motion.right_mm, middle, atol=0.011)
    np.testing.assert_allclose(motion.left_mm, -motion.right_mm, atol=1e-9)
    assert (motion.jaws_mm == np.array(JAWS_MM)).all()


def test_its_fluence_is_monitor_units_where_the_leaves_are_open(root: Path) -> None:
    case, plan = read_case(root / "case"), read_rtplan(root / "clinical.dcm")
    field = plan.beamlet_grid(case.machine, 5.0)
    assert field.shape == (16, 15) and (field.beamlet_start_mm, field.leaf_edges_mm[0]) == (-38.0, -40.0)
    setup = BeamSetup(ControlPoints.from_arcs(plan.arcs), field, case.machine)
    fluence_mu = plan.on_rows(field).fluence_mu(setup).sum(dim=0)
    assert float(fluence_mu[8, 7]) == pytest.approx(TOTAL_MU, rel=1e-5)  # always open
    assert float(fluence_mu[0, 0]) == pytest.approx(case.machine.leaf_transmission * TOTAL_MU, rel=1e-5)


@pytest.mark.slow
def test_the_start_is_the_exported_plan_and_the_end_no_worse(root: Path, tmp_path: Path) -> None:
    exported = metrics(root / "reference")
    for case, size in ((root / "case", []), (root / "patients" / "phantom_0000", SIZE)):
        arguments = ["plan", str(case), "--start", str(root / "reference" / "RTPLAN.dcm"), "--out", str(tmp_path)]
        assert main([*arguments, *PLAN, *size]) == 0
        measured = metrics(tmp_path)
        start = measured["compared"]
        assert isinstance(start, dict) and start["name"] == "start"
        assert start["objective"] == pytest.approx(exported["objective"], rel=3e-4)  # a field's nodes are its own
        assert start["complexity"]["mu"] == pytest.approx(exported["complexity"]["mu"], abs=1e-3)  # type: ignore[index]
        assert float(str(measured["objective"])) <= start["objective"]
        assert measured["machine_violations"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("planner", ["reference", "fluence+adam"])
def test_a_clinical_plan_is_improved(root: Path, tmp_path: Path, planner: str) -> None:
    folder, late = root / "patients" / "phantom_0000", clinical(root, "late.dcm", beam_on_at=3)
    options = ["--start", str(late), "--planner", planner, "--out", str(tmp_path)]
    assert main(["plan", str(folder), *options, *PLAN, *SIZE]) == 0
    measured = metrics(tmp_path)
    start = measured["compared"]
    assert isinstance(start, dict)
    assert start["machine_violations_by_limit"]["mu_per_deg"] == 3  # no monitor units in three sectors
    assert float(str(measured["objective"])) < 0.8 * start["objective"]
    if planner == "reference":
        assert measured["machine_violations"] == 0
        assert read_rtplan(tmp_path / "RTPLAN.dcm").arcs == read_rtplan(late).arcs


def test_a_start_fits_a_case_that_is_cut_otherwise(root: Path) -> None:
    case, rtplan = read_case(root / "case"), read_rtplan(root / "clinical.dcm")
    fine = case.with_settings(arcs=rtplan.arcs, beamlets=rtplan.beamlet_grid(case.machine, 5.0))
    [arc] = rtplan.arcs
    coarse_arc = type(arc)(182.0, 176.0, 59, "clockwise", 30.0)
    coarse = fine.with_settings(arcs=(coarse_arc,))
    plans = {
        name: start_plan(root / "clinical.dcm", one, None)[1] for name, one in {"fine": fine, "coarse": coarse}.items()
    }
    torch.testing.assert_close(plans["fine"].mu.reshape(59, 3).sum(dim=1), plans["coarse"].mu, atol=1e-3, rtol=0)
    torch.testing.assert_close(plans["fine"].left_mm[1::3], plans["coarse"].left_mm, atol=0.1, rtol=0)
    assert not any(machine_violations(plans["fine"], fine.beam_setup).values())
    values = [float(body_objective(one, plans[name].fluence_mu(one.beam_setup)))
              for name, one in {"fine": fine, "coarse": coarse}.items()]  # fmt: skip
    assert values[0] == pytest.approx(values[1], rel=0.03)


def leaves_parked_closed(data: Dataset) -> None:
    """As planning systems export them: touching beside the opening, behind the Y jaws on the move and far too fast.

    Jaws stand at 40 mm; the pair next to them on either side is closed at rest in front of them.
    """
    for index, point in enumerate(data.BeamSequence[1].ControlPointSequence):
        leaves = point.BeamLimitingDevicePositionSequence[-1].LeafJawPositions
        tips = np.array(leaves, dtype=float).reshape(2, -1)
        closed = np.flatnonzero(half_width_mm(index) < 8)
        tips[:, closed] = 50.0 * (index // 2 % 2) * (np.abs(closed - 29.5) > 9)
        point.BeamLimitingDevicePositionSequence[-1].LeafJawPositions = [f"{tip:.2f}" for tip in tips.ravel()]


def test_closed_pairs_of_a_start_are_no_faults_and_stay_closed(root: Path, tmp_path: Path) -> None:
    parked = clinical(root, "parked.dcm", change=leaves_parked_closed)
    fluence = ["--planner", "fluence", "--compare", str(parked), "--out", str(tmp_path)]
    assert main(["plan", str(root / "case"), *fluence, *PLAN]) == 0
    compared = metrics(tmp_path)["compared"]
    assert isinstance(compared, dict)
    assert sum(compared["machine_violations_by_limit"].values()) == 0
    assert compared["delivery_s"] == pytest.approx(71.6, abs=0.5)  # at full speed 59 s; one pair on each side is late
    assert "Shortest delivery" in (tmp_path / "report.html").read_text()
    rtplan, case = read_rtplan(parked), read_case(root / "case")
    own = case.with_settings(arcs=rtplan.arcs, beamlets=rtplan.beamlet_grid(case.machine, 5.0))
    case, start = start_plan(parked, own, None)
    projected = project_to_limits(start, case.beam_setup)
    assert sum(machine_violations(projected, case.beam_setup).values()) == 0
    closed = (start.right_mm - start.left_mm < 0.01).all(dim=0) & case.beamlets.inside_jaws.any(dim=1)
    assert int(closed.sum()) == 2
    torch.testing.assert_close(projected.left_mm[:, closed], projected.right_mm[:, closed])
    before, after = (plan.fluence_mu(case.beam_setup)[:, closed].sum() for plan in (start, projected))
    assert float(after) <= float(before) * (1 + 1e-5)


def beam(data: Dataset) -> Dataset:
    arc: Dataset = data.BeamSequence[1]
    return arc


def in_first_point(keyword: str, value: object) -> Callable[[Dataset], object]:
    return lambda data: setattr(beam(data).ControlPointSequence[0], keyword, value)


def another_mlc(data: Dataset) -> None:
    device = beam(data).BeamLimitingDeviceSequence[-1]
    device.LeafPositionBoundaries = [edge * 1.1 for edge in device.LeafPositionBoundaries]


def without_filter(data: Dataset) -> None:
    beam(data).PrimaryFluenceModeSequence[0].FluenceMode = "NON_STANDARD"


def late_weight(data: Dataset) -> None:
    beam(data).ControlPointSequence[0].CumulativeMetersetWeight = "0.0001"


REFUSED: list[tuple[Callable[[Dataset], object], str]] = [
    (in_first_point("NominalBeamEnergy", 10), "beam 3: 10 MV, expected 6 MV of truebeam_millennium120"),
    (without_filter, "beam 3: 6 MV without flattening filter, expected 6 MV"),
    (another_mlc, "60 leaf pairs from -220 to 220 mm, expected those of truebeam_millennium120"),
    (in_first_point("IsocenterPosition", [0, 0, 5000]), "lies outside the CT"),
    (lambda data: setattr(data, "FrameOfReferenceUID", "1.2.9"), "other frame of reference"),
    (lambda data: setattr(data, "Modality", "RTDOSE"), "expected RTPLAN"),
    (late_weight, "ascending from 0 to"),
]


@pytest.mark.parametrize(("change", "named"), REFUSED)
@pytest.mark.parametrize(("case", "size"), [("case", []), ("patients/phantom_0000", SIZE)])
def test_a_start_of_another_machine_or_patient_is_refused(
    root: Path, tmp_path: Path, case: str, size: list[str], change: Callable[[Dataset], object], named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    start = clinical(root, f"{tmp_path.name}.dcm", change=change)
    message = error_of(["plan", str(root / case), "--start", str(start), *size], tmp_path, capsys)
    assert message.startswith(f"{start}: ") and named in message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "arc 1 from 182 to 176 deg clockwise, collimator 30, couch 0, expected from 180 to 180 deg clockwise"),
        ({"fractions": 39}, "clinical.dcm: 20 fractions, expected 39 as case"),
        ({"isocentre_mm": (0.0, 0.0, 1.0)}, "expected (0.0, 0.0, 1.0) mm as case"),
        ({"arcs": 2}, "1 arcs, expected 2"),
        ({"field": True}, "of its openings outside the field, expected them from -15 to 0 mm along"),
    ],
)
def test_a_start_that_does_not_fit_a_case_is_refused(root: Path, settings: dict[str, object], named: str) -> None:
    case: Case = read_case(root / "case")
    rtplan = read_rtplan(root / "clinical.dcm")
    if settings.keys() & {"isocentre_mm", "fractions"}:
        case = case.with_settings(**settings)
    if "arcs" in settings:
        case = case.with_settings(arcs=case.arcs * 2)
    if "field" in settings:
        small = type(case.beamlets)(tuple(case.machine.leaf_edges_mm[28:33]), -15.0, 5.0, 3)
        case = case.with_settings(arcs=rtplan.arcs, beamlets=small)
    with pytest.raises(ValueError) as error:
        start_plan(root / "clinical.dcm", case, None)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--start", "none.dcm"], "none.dcm: no such file"),
        (["--start", "CLINICAL", "--planner", "learned", "--run", "CASE"], "planner learned does not take one"),
        (["--compare", "CASE"], "metrics.json: expected the metrics that `vmat plan` writes"),
        (["--compare", "none"], "none: expected results of `vmat plan` or an RTPLAN"),
        (["--compare", "OTHER"], "plan of case somebody, expected one of case"),
    ],
)
def test_other_bad_starts_and_comparisons_are_one_line(
    root: Path, tmp_path: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(root / "reference", tmp_path / "other")
    (other / "metrics.json").write_text(json.dumps({**metrics(root / "reference"), "case": "somebody"}))
    places = {"CLINICAL": root / "clinical.dcm", "CASE": root / "case", "OTHER": other}
    words = [str(places.get(word, word)) for word in options]
    assert named in error_of(["plan", str(root / "case"), *words], tmp_path, capsys)


def error_of(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails and writes nothing."""
    out = tmp_path / "out"
    capsys.readouterr()
    assert main([*arguments, "--out", str(out)]) == 2
    assert not out.exists()
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vmat: error: ")]
    return line.removeprefix("vmat: error: ")


def test_a_plan_is_compared_with_an_earlier_one_and_with_an_rtplan(root: Path, tmp_path: Path) -> None:
    for name, other in (("fluence", root / "fluence"), ("RTPLAN", root / "clinical.dcm")):
        if name == "fluence":
            assert main(["plan", str(root / "case"), "--planner", "fluence", "--out", str(other), *PLAN]) == 0
        options = ["--planner", "fluence", "--compare", str(other), "--out", str(tmp_path)]
        assert main(["plan", str(root / "case"), *options, *PLAN]) == 0
        compared = metrics(tmp_path)["compared"]
        assert isinstance(compared, dict) and compared["name"] == name
        assert "Compared with" in (tmp_path / "report.html").read_text()
        if name == "fluence":
            assert compared["objective"] == pytest.approx(metrics(tmp_path)["objective"], rel=1e-5)
    patient = pydicom.dcmread(root / "clinical.dcm")
    text = (tmp_path / "report.html").read_text()
    assert str(patient.PatientName) not in text and patient.RTPlanLabel not in text
