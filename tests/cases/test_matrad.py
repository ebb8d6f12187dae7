"""matRad's dose influence, from MATLAB files of both kinds, with voxels in our order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import savemat
from scipy.sparse import csc_matrix

from lightning_vmat.cases.matrad.influence import read_matrad_influence

NX, NY, NZ = 4, 3, 2
RAYS = (((-5.0, 0.0), (0.0, 0.0), (0.0, 5.0)), ((0.0, 0.0), (5.0, 5.0)))
BEAM = np.array([1.0, 1, 1, 2, 2])
RAY = np.array([1.0, 2, 3, 1, 2])


def dose_at(y: NDArray[Any], x: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
    """Dose of the first beamlet: another number in each voxel, zero in some."""
    return np.where((x + y + z) % 3 == 0, 0.0, 100.0 * z + 10.0 * y + x + 1)


def matlab_matrix() -> csc_matrix:
    """Voxels numbered as MATLAB does, over [y, x, z]."""
    y, x, z = np.unravel_index(np.arange(NX * NY * NZ), (NY, NX, NZ), order="F")
    first = dose_at(y, x, z)
    return csc_matrix(np.stack([(i + 1) * first for i in range(5)], axis=1))


def contents(matrix: csc_matrix) -> dict[str, Any]:
    grid = {
        "resolution": {"x": 3.0, "y": 2.0, "z": 5.0},
        "x": -6.0 + 3.0 * np.arange(NX),
        "y": 1.0 + 2.0 * np.arange(NY),
        "z": 10.0 + 5.0 * np.arange(NZ),
        "dimensions": np.array([NY, NX, NZ], float),
    }
    cell = np.empty((1, 1), object)
    cell[0, 0] = matrix
    beams = np.empty((1, 2), object)
    for i, (rays, gantry) in enumerate(zip(RAYS, (0.0, 72.0), strict=True)):
        ray = np.array([(np.array([x, 0.0, z]),) for x, z in rays], dtype=[("rayPos_bev", object)])
        beams[0, i] = {
            "gantryAngle": gantry,
            "couchAngle": 0.0,
            "bixelWidth": 5.0,
            "isoCenter": np.array([1.0, 2.0, 3.0]),
            "ray": ray,
        }
    names = list(beams[0, 0])
    struct = np.array([tuple(b[n] for n in names) for b in beams[0]], dtype=[(n, object) for n in names])
    dij = {"physicalDose": cell, "doseGrid": grid, "beamNum": BEAM[:, None], "rayNum": RAY[:, None]}
    return {"dij": dij, "stf": struct}


def write_v73(path: Path, matrix: csc_matrix) -> None:
    """The same in HDF5, laid out as MATLAB 7.3 does."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        count = 0

        def reference(value: Any) -> h5py.Reference:
            nonlocal count
            count += 1
            if callable(value):
                group = refs.create_group(str(count))
                value(group)
                return group.ref
            return refs.create_dataset(str(count), data=np.atleast_2d(np.asarray(value, float)).T).ref

        def sparse(group: h5py.Group) -> None:
            group.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
            group["data"], group["ir"], group["jc"] = matrix.data, matrix.indices, matrix.indptr

        def cells(group: h5py.Group, name: str, values: list[Any]) -> None:
            links = np.array([[reference(v)] for v in values], dtype=h5py.ref_dtype)
            group.create_dataset(name, data=links, dtype=h5py.ref_dtype)

        whole = contents(matrix)
        dij = file.create_group("dij")
        cells(dij, "physicalDose", [sparse])
        for name in ("beamNum", "rayNum"):
            dij[name] = whole["dij"][name].T
        grid = dij.create_group("doseGrid")
        for name in ("x", "y", "z"):
            grid[name] = whole["dij"]["doseGrid"][name][:, None]
            grid[f"resolution/{name}"] = np.array([[whole["dij"]["doseGrid"]["resolution"][name]]])
        stf = file.create_group("stf")
        for name, values in (
            ("gantryAngle", [0.0, 72.0]),
            ("couchAngle", [0.0, 0.0]),
            ("bixelWidth", [5.0, 5.0]),
            ("isoCenter", [[1.0, 2.0, 3.0]] * 2),
        ):
            cells(stf, name, values)

        def rays(positions: tuple[tuple[float, float], ...]) -> Any:
            return lambda group: cells(group, "rayPos_bev", [[x, 0.0, z] for x, z in positions])

        cells(stf, "ray", [rays(positions) for positions in RAYS])
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def as_pyradplan(whole: dict[str, Any]) -> dict[str, Any]:
    """Beams and rays as lists of dicts, numbered from 0: what pyRadPlan hands to `savemat`."""
    beams = [{name: one[name] for name in whole["stf"].dtype.names} for one in whole["stf"]]
    for beam in beams:
        beam["ray"] = [{"rayPos_bev": place} for place in beam["ray"]["rayPos_bev"]]
    return {"dij": {**whole["dij"], "beamNum": BEAM[:, None] - 1, "rayNum": RAY[:, None] - 1}, "stf": beams}


@pytest.fixture(params=["v7", "v7.3", "pyRadPlan"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "phantom.mat"
    if request.param == "v7":
        savemat(file, contents(matlab_matrix()))
    elif request.param == "pyRadPlan":
        savemat(file, as_pyradplan(contents(matlab_matrix())))
    else:
        write_v73(file, matlab_matrix())
    return file


def test_voxels_beamlets_and_dose(path: Path) -> None:
    read = read_matrad_influence(path)
    assert read.grid.shape == (NZ, NY, NX)
    assert read.grid.spacing_mm == (3.0, 2.0, 5.0)
    assert read.grid.origin_mm == (-6.0, 1.0, 10.0)
    assert read.isocentre_mm == (1.0, 2.0, 3.0)
    assert read.influence.gantry_deg.tolist() == [0.0, 72.0]
    columns = read.influence.columns
    assert list(zip(columns.x_mm, columns.y_mm, strict=True)) == [place for rays in RAYS for place in rays]
    z, y, x = np.unravel_index(np.arange(NX * NY * NZ), (NZ, NY, NX))
    expected = dose_at(y, x, z)
    np.testing.assert_allclose(read.influence.matrix.toarray(), expected[:, None] * np.arange(1, 6), rtol=1e-6)


def test_operator(path: Path) -> None:
    influence = read_matrad_influence(path).influence
    stored = influence.stored(gy_scale=2.0)
    assert stored.fluence_shape == (2, 2, 3)
    fluence = torch.zeros(stored.fluence_shape)
    fluence[0, 0, 1] = 1.0  # the second ray of the first beam, at (0, 0)
    expected = 2 * influence.matrix.toarray()[:, 1]
    np.testing.assert_allclose(stored.forward(fluence), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beamNum": np.array([1.0, 1, 1, 2, 3])}, "columns of beams 1 to 3, stf holds 2 beams"),
        ({"rayNum": np.array([1.0, 2, 3, 1, 9])}, "a column of ray 9, it has 2"),
        ({"beamNum": BEAM[:4], "rayNum": RAY[:4]}, "5 columns, expected 4"),
        ({"matrix": matlab_matrix()[:-1]}, "23 rows, expected 24"),
        ({"matrix": matlab_matrix() * -1}, "negative dose"),
        ({"matrix": matlab_matrix() * np.nan}, "NaN"),
        ({"doseGrid": 1.0}, "expected dij and stf of matRad"),
    ],
)
def test_files_that_disagree(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = contents(change.pop("matrix", matlab_matrix()))
    whole["dij"].update(change)
    savemat(tmp_path / "odd.mat", whole)
    with pytest.raises(ValueError, match=message) as caught:
        read_matrad_influence(tmp_path / "odd.mat")
    assert "odd.mat" in str(caught.value)


def test_broken_files(tmp_path: Path, path: Path) -> None:
    (tmp_path / "cut.mat").write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.mat"):
        read_matrad_influence(tmp_path / "cut.mat")
    with pytest.raises(ValueError, match=r"absent\.mat"):
        read_matrad_influence(tmp_path / "absent.mat")
    savemat(tmp_path / "other.mat", {"a": 1})
    with pytest.raises(ValueError, match="no variable dij"):
        read_matrad_influence(tmp_path / "other.mat")
