"""A PortPy patient as a case: its arc, voxels and influence; and training on a cohort of such cases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_data import SHARED

from lightning_vmat.cases.case_files import read_case
from lightning_vmat.cases.portpy.arc import arc_of_beams
from lightning_vmat.cases.portpy.blocks import Blocks
from lightning_vmat.cases.portpy.files import PortPyFolder
from lightning_vmat.cases.portpy.patient import read_portpy
from lightning_vmat.cases.portpy.source import PortPySource, patient_folders
from lightning_vmat.cli import main
from lightning_vmat.commands.prepare import portpy
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.plan.arc import ControlPoints
from lightning_vmat.plan.case import Case
from lightning_vmat.planning.planners import fluence_planner
from lightning_vmat.planning.problem import build_problem

FOLDER = SHARED / "portpy-mini" / "Prostate_Patient_Mini"
CONFIGS = Path(__file__).parents[2] / "configs"
needs_patient = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no PortPy patient in {FOLDER}")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three copies of the patient, with reference plans."""
    root = tmp_path_factory.mktemp("portpy")
    for number in (1, 2, 10):
        shutil.copytree(FOLDER, root / f"patients/Prostate_Patient_{number}")
    portpy(root / "patients", out=root / "cohort", size="tiny", plan=True, jobs=1)
    return root / "cohort"


@pytest.fixture(scope="module")
def case(cohort: Path) -> Case:
    return read_case(cohort / "Prostate_Patient_2")


def beams(folder: Path, gantry_deg: list[float], **changes: float) -> PortPyFolder:
    """A folder with nothing but the metadata of beams; `changes` are the first one's."""
    (folder / "Beams").mkdir()
    for number, angle in enumerate(gantry_deg):
        about = {"ID": number, "gantry_angle": angle, "collimator_angle": 0, "couch_angle": 0}
        about |= changes if number == 0 else {}
        (folder / "Beams" / f"Beam_{number}_MetaData.json").write_text(json.dumps(about))
    return PortPyFolder(folder)


@pytest.mark.parametrize(
    ("angles", "first"),
    [
        ([float(angle) for angle in range(0, 360, 5)], 180.0),
        ([0.0, 120.0, 240.0], 240.0),
        ([340.0, 0.0, 20.0, 40.0, 300.0, 320.0], 300.0),
        ([200.0, 240.0, 280.0, 320.0], 200.0),
        ([90.0], 90.0),
        ([350.0, 10.0], 350.0),
    ],
)
def test_control_points_of_the_arc_are_the_beams(tmp_path: Path, angles: list[float], first: float) -> None:
    ids, arc = arc_of_beams(beams(tmp_path, angles))
    ordered = [angles[number] for number in ids]
    assert sorted(ids) == list(range(len(angles))) and ordered[0] == first
    found = ControlPoints.from_arcs([arc]).gantry_deg
    off = (found - torch.tensor(ordered) + 180.0) % 360.0 - 180.0
    assert off.abs().max() < 0.05


def test_beams_that_make_no_arc_are_named(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="gantry angles 10 to 30 deg apart, expected even spacing"):
        arc_of_beams(beams(tmp_path / "a", [0.0, 10.0, 40.0]))
    with pytest.raises(ValueError, match=r"collimator and couch at .*expected one collimator and couch angle"):
        arc_of_beams(beams(tmp_path / "b", [0.0, 10.0, 20.0], couch_angle=5))
    with pytest.raises(ValueError, match="3 beams at 2 gantry angles"):
        arc_of_beams(beams(tmp_path / "c", [0.0, 10.0, 10.0]))
    with pytest.raises(ValueError, match="no patients, expected folders with CT_MetaData"):
        patient_folders(tmp_path)


@needs_patient
def test_patients_come_by_number(cohort: Path) -> None:
    names = [folder.name for folder in patient_folders(cohort.parent / "patients")]
    assert names == ["Prostate_Patient_1", "Prostate_Patient_2", "Prostate_Patient_10"]
    assert patient_folders(FOLDER) == [FOLDER]


@needs_patient
def test_every_row_of_the_influence_is_one_voxel(case: Case) -> None:
    patient = read_portpy(FOLDER)
    rows = Blocks.of(patient).rows(patient)
    held = rows[rows >= 0]
    assert len(held) == len(np.unique(held)) == len(patient.row_of_voxel[patient.row_of_voxel >= 0].unique())
    whole = torch.bincount(patient.row_of_voxel[patient.row_of_voxel >= 0].flatten())[held] == 9
    place = case.grid.centres_mm(torch.from_numpy(np.flatnonzero(rows >= 0)))
    torch.testing.assert_close(place[whole], patient.row_centres_mm[held][whole], atol=1e-3, rtol=0)
    for ours, theirs in (("PTV", "PTV"), ("Rectum", "RECTUM")):
        ratio = float(case.structures[ours].sum()) * case.grid.voxel_volume_cc
        ratio /= float(patient.structures[theirs].sum()) * patient.grid.voxel_volume_cc
        assert ratio == pytest.approx(1.0, abs=0.06)


@needs_patient
def test_dose_is_what_portpy_computes(case: Case) -> None:
    with np.load(FOLDER.parent / "expected.npz", allow_pickle=False) as file:
        expected = dict(file)
    patient = read_portpy(FOLDER, beam_ids=arc_of_beams(PortPyFolder(FOLDER))[0])
    columns = patient.influence.columns
    intensity = torch.zeros(case.fluence_shape)
    order = {(x, y, gantry): i for i, (x, y, gantry) in enumerate(_places(expected))}
    ours = zip(columns.x_mm, columns.y_mm, patient.influence.gantry_deg[columns.control_point], strict=True)
    chosen = [expected["check_intensity"][order[round(x, 3), round(y, 3), round(g, 3)]] for x, y, g in ours]
    intensity.view(-1)[torch.from_numpy(columns.place(case.beamlets, 3))] = torch.tensor(chosen).float()
    assert case.influence_path is not None
    dose_gy = StoredInfluence.load(case.influence_path).forward(intensity) / case.fractions * 100
    rows = Blocks.of(patient).rows(patient)
    there = rows >= 0
    np.testing.assert_allclose(dose_gy[there], expected["check_dose_gy"][rows[there]], rtol=2e-3, atol=1e-3)
    assert not dose_gy[~there].any()


def _places(expected: dict[str, np.ndarray[Any, Any]]) -> list[tuple[float, ...]]:
    names = ("column_position_x_mm", "column_position_y_mm", "column_gantry_deg")
    return [tuple(round(float(v), 3) for v in row) for row in zip(*(expected[n] for n in names), strict=True)]


@needs_patient
def test_planning_uses_the_stored_influence(case: Case) -> None:
    problem = build_problem(case, voxels=800)
    assert isinstance(problem.projection.operator, StoredInfluence)
    result = fluence_planner(voxels=800, evaluations=30).plan(case)
    assert result.trace.points[-1].objective < 0.5 * result.trace.points[0].objective
    few = case.with_settings(arcs=(case.arcs[0], case.arcs[0]))
    with pytest.raises(
        ValueError, match=r"influence\.safetensors: fluence of shape \(3, 8, 16\), expected \(6, 8, 16\)"
    ):
        build_problem(few, voxels=800)


@needs_patient
def test_source_names_what_is_wrong(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "Prostate_Patient_9")
    (tmp_path / "Prostate_Patient_9/CT_MetaData.json").write_text("{")
    with pytest.raises(ValueError, match=r"Prostate_Patient_9/CT_MetaData\.json"):
        PortPySource(tmp_path / "Prostate_Patient_9", "tiny", "prostate_60gy_20fx").load()
    assert main(["prepare", "portpy", str(tmp_path), "--out", str(tmp_path / "out"), "--jobs=1"]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@needs_patient
def test_one_epoch_of_each_recipe(cohort: Path) -> None:
    """Only the cohort differs from what phantoms are trained with, and that the smallest batch is of one."""
    runs = cohort.parent
    small = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.enable_progress_bar=false"]
    small += ["--data.cohort", str(cohort), "--data.voxels=500"]
    needs = {
        "teacher": [],
        "regression": [],
        "distillation": ["--model.init_args.teacher", str(runs / "teacher")],
        "learned_optimizer": ["--model.init_args.generator", str(runs / "distillation")],
    }
    for recipe, options in needs.items():
        configs = [f"--config={folder / f'{recipe}.yaml'}" for folder in (CONFIGS, CONFIGS / "demo")]
        arguments = ["fit", *configs, *small, *options]
        assert main([*arguments, "--trainer.default_root_dir", str(runs / recipe)]) == 0
        assert (runs / recipe / "checkpoints" / "last.ckpt").is_file()
