"""A PortPy patient folder gives the matrix, beamlets and voxels that PortPy itself reads from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from shared_data import SHARED

from lightning_vmat.cases.portpy.patient import PortPyPatient, read_portpy
from lightning_vmat.dose.projection import DoseProjection

FOLDER = SHARED / "portpy-mini" / "Prostate_Patient_Mini"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no PortPy patient in {FOLDER}")
Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def patient() -> PortPyPatient:
    return read_portpy(FOLDER)


@pytest.fixture(scope="module")
def expected() -> Arrays:
    with np.load(FOLDER.parent / "expected.npz", allow_pickle=False) as file:
        return dict(file)


def test_matrix(patient: PortPyPatient, expected: Arrays) -> None:
    matrix = patient.influence.matrix.sorted_indices()
    assert matrix.shape == tuple(expected["sparse_shape"])
    np.testing.assert_array_equal(matrix.indptr, expected["sparse_indptr"])
    np.testing.assert_array_equal(matrix.indices, expected["sparse_indices"])
    np.testing.assert_array_equal(matrix.data, expected["sparse_data"])
    np.testing.assert_allclose(matrix @ expected["check_intensity"], expected["check_dose_gy"], rtol=1e-6)


def test_full_matrix(expected: Arrays) -> None:
    full = read_portpy(FOLDER, full=True).influence.matrix.astype(float)
    np.testing.assert_allclose(full.sum(axis=0), expected["full_column_sum"], rtol=1e-6)
    np.testing.assert_allclose(full.sum(axis=1), expected["full_row_sum"], rtol=1e-6)
    np.testing.assert_allclose(full @ expected["check_intensity"], expected["full_check_dose_gy"], rtol=1e-6)


def test_beamlets(patient: PortPyPatient, expected: Arrays) -> None:
    columns = patient.influence.columns
    for ours, theirs in (("x_mm", "position_x_mm"), ("y_mm", "position_y_mm"), ("width_mm",) * 2, ("height_mm",) * 2):
        np.testing.assert_array_equal(getattr(columns, ours), expected[f"column_{theirs}"])
    np.testing.assert_array_equal(patient.influence.gantry_deg[columns.control_point], expected["column_gantry_deg"])
    np.testing.assert_array_equal([beam.beam_id for beam in patient.beams], expected["beam_ids"])
    beamlet = np.concatenate([beam.beamlet for beam in patient.beams])
    np.testing.assert_array_equal(beamlet, expected["column_beamlet_id"])
    ends = np.cumsum([len(beam.beamlet) for beam in patient.beams]) - 1
    np.testing.assert_array_equal(ends, expected["beam_end_column"])


def test_voxels_and_structures(patient: PortPyPatient, expected: Arrays) -> None:
    np.testing.assert_array_equal(patient.row_of_voxel, expected["ct_to_dose_voxel_map_zyx"])
    assert list(patient.structures) == expected["structure_names"].tolist()
    for name in patient.structures:
        rows, volume_cc = patient.rows_of(name)
        other = rows != 0  # PortPy leaves row 0 out of every list
        np.testing.assert_array_equal(rows[other], expected[f"rows_{name}"])
        np.testing.assert_allclose(volume_cc[other], expected[f"volume_cc_{name}"], rtol=1e-5)
    assert 0 in patient.rows_of("PTV")[0]
    centres = patient.row_centres_mm[torch.from_numpy(expected["row_with_ct_voxel"]).long()]
    np.testing.assert_allclose(centres, expected["row_coordinate_xyz_mm"], atol=1e-4)
    assert int(patient.row_centres_mm.isnan().any(dim=1).sum()) == 80


def test_dose_on_the_ct(patient: PortPyPatient, expected: Arrays) -> None:
    dose = patient.on_ct(torch.from_numpy(expected["check_dose_gy"]))
    np.testing.assert_allclose(dose, expected["check_dose_zyx"], rtol=1e-6)


def test_operator_on_rectangular_maps(patient: PortPyPatient, expected: Arrays) -> None:
    stored = patient.influence.stored(gy_scale=26.0)
    grid = patient.influence.columns.smallest_grid()
    place = patient.influence.columns.place(grid, 3)
    fluence = torch.zeros(stored.fluence_shape)
    fluence.view(-1)[torch.from_numpy(place)] = torch.from_numpy(expected["check_intensity"]).float()
    dose = DoseProjection(stored)(fluence)
    np.testing.assert_allclose(dose, 26 * expected["check_dose_gy"], rtol=1e-5)
    # PortPy's grids are of 2.5 mm, the highest row first; -1: no beamlet
    held = np.full(fluence.shape, -1)
    held.flat[place] = np.arange(len(place))
    for number, beam_id in enumerate(expected["beam_ids"]):
        theirs = expected[f"bev_column_grid_{beam_id}"][::-1]
        rows, columns = (np.flatnonzero((theirs >= 0).any(axis=axis)) for axis in (1, 0))
        theirs = theirs[rows[0] : rows[-1] + 1 : 2, columns[0] : columns[-1] + 1]
        ours = held[number][np.ix_((held[number] >= 0).any(axis=1), (held[number] >= 0).any(axis=0))]
        np.testing.assert_array_equal(ours, theirs)


def test_all_beamlets_and_chosen_beams() -> None:
    patient = read_portpy(FOLDER, beam_ids=[48, 0], target=None)
    assert [len(beam.beamlet) for beam in patient.beams] == [190, 190]
    assert patient.influence.gantry_deg.tolist() == [240.0, 0.0]


def _nan(folder: Path) -> None:
    with h5py.File(folder / "Beams" / "Beam_24_Data.h5", "r+") as file:
        file["inf_matrix_sparse"][5, 2] = np.nan


def _negative(folder: Path) -> None:
    with h5py.File(folder / "Beams" / "Beam_24_Data.h5", "r+") as file:
        file["inf_matrix_sparse"][:, 2] = -0.5


def _row_outside(folder: Path) -> None:
    with h5py.File(folder / "Beams" / "Beam_24_Data.h5", "r+") as file:
        file["inf_matrix_sparse"][5, 0] = 9999


def _cut_off(folder: Path) -> None:
    path = folder / "Beams" / "Beam_24_Data.h5"
    path.write_bytes(path.read_bytes()[:40_000])


def _no_dataset(folder: Path) -> None:
    path = folder / "CT_MetaData.json"
    path.write_text(path.read_text().replace('ct_hu_3d"', 'other"').replace("ct_hu_3d_File", "ct_hu_3d_File"))


def _no_key(folder: Path) -> None:
    path = folder / "Beams" / "Beam_0_MetaData.json"
    about = json.loads(path.read_text())
    del about["iso_center"]
    path.write_text(json.dumps(about))


def _broken_json(folder: Path) -> None:
    (folder / "StructureSet_MetaData.json").write_text("[{")


def _other_map(folder: Path) -> None:
    with h5py.File(folder / "OptimizationVoxels_Data.h5", "r+") as file:
        del file["ct_to_dose_voxel_map"]
        file["ct_to_dose_voxel_map"] = np.zeros((2, 3, 4), int)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_nan, r"Beam_24_MetaData\.json: holds NaN"),
        (_negative, r"Beam_24_MetaData\.json: holds negative dose"),
        (_row_outside, "influence at row 0 to 9999, expected 0 to 3019"),
        (_cut_off, r"Beam_24_Data\.h5"),
        (_no_dataset, "no dataset other"),
        (_no_key, "iso_center"),
        (_broken_json, r"StructureSet_MetaData\.json"),
        (_other_map, r"map of CT voxels of shape \(2, 3, 4\)"),
    ],
)
def test_damaged_folders(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "patient"
    shutil.copytree(FOLDER, folder)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        read_portpy(folder)
    assert "\n" not in str(caught.value)


def test_beams_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no beam 7"):
        read_portpy(FOLDER, beam_ids=[7])
    with pytest.raises(ValueError, match=r"CT_MetaData\.json"):
        read_portpy(tmp_path)
