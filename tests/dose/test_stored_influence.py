"""Influence on disk and in memory gives the dose of the operator that it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.sparse import csr_array
from water_case import water_case

from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.stored_influence import StoredInfluence


@pytest.fixture(scope="module")
def pair() -> tuple[PencilBeamOperator, StoredInfluence]:
    case = water_case(control_points=2)
    operator = PencilBeamOperator.build(case, case.body_index[::20])
    return operator, StoredInfluence.from_operator(operator)


def test_same_dose_as_the_operator(pair: tuple[PencilBeamOperator, StoredInfluence]) -> None:
    operator, stored = pair
    fluence = torch.rand(3, *operator.fluence_shape)
    torch.testing.assert_close(stored.forward(fluence), operator.forward(fluence), rtol=1e-5, atol=0)
    weight = torch.rand(2, operator.voxel_count)
    torch.testing.assert_close(stored.adjoint(weight), operator.adjoint(weight), rtol=2e-5, atol=0)


def test_save_and_load(pair: tuple[PencilBeamOperator, StoredInfluence], tmp_path: Path) -> None:
    _, stored = pair
    stored.save(tmp_path / "influence.safetensors")
    loaded = StoredInfluence.load(tmp_path / "influence.safetensors")
    fluence = torch.rand(stored.fluence_shape)
    dose = stored.forward(fluence)
    torch.testing.assert_close(loaded.forward(fluence), dose, rtol=1e-3, atol=1e-3 * float(dose.max()))
    assert [p.name for p in tmp_path.iterdir()] == ["influence.safetensors"]


def test_a_file_holds_elements_to_half_precision(
    pair: tuple[PencilBeamOperator, StoredInfluence], tmp_path: Path
) -> None:
    """To 2^-11 of themselves; those below 2^-14 of the largest to 2^-25 of the largest."""
    pair[1].save(tmp_path / "influence.safetensors")
    loaded, value = StoredInfluence.load(tmp_path / "influence.safetensors").matrix.value, pair[1].matrix.value
    assert bool(((loaded - value).abs() <= 2.0**-11 * 1.001 * value + 2.0**-25 * value.max()).all())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"value": [1.0, np.nan]}, "NaN"),
        ({"value": [1.0, -0.5]}, "negative dose"),
        ({"column": [0, 6]}, "indices"),
        ({"row_start": [0, 1, 9]}, "pointer|length"),
    ],
)
def test_files_of_bad_elements(damage: dict[str, list[float]], message: str, tmp_path: Path) -> None:
    arrays = {"row_start": [0.0, 1.0, 2.0], "column": [0.0, 5.0], "value": [1.0, 0.5], **damage}
    kinds = {"row_start": torch.int32, "column": torch.int32, "value": torch.float16}
    tensors = {name: torch.tensor(values, dtype=kinds[name]) for name, values in arrays.items()}
    about = {"version": 1, "fluence_shape": [1, 2, 3], "scale": 1.0}
    save_file(tensors, tmp_path / "odd.safetensors", {"dose": json.dumps(about)})
    with pytest.raises(ValueError, match=message) as caught:
        StoredInfluence.load(tmp_path / "odd.safetensors")
    assert "odd.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_threshold_keeps_the_largest(pair: tuple[PencilBeamOperator, StoredInfluence]) -> None:
    operator, stored = pair
    sparse = StoredInfluence.from_operator(operator, relative_threshold=0.05)
    assert len(sparse.matrix.value) < len(stored.matrix.value) / 5


def test_broken_files_and_values_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\x00nonsense")
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        StoredInfluence.load(broken)
    with pytest.raises(ValueError, match=r"absent\.safetensors"):
        StoredInfluence.load(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="NaN"):
        StoredInfluence.from_scipy(csr_array(np.array([[1.0, np.nan]])), (1, 1, 2))
    with pytest.raises(ValueError, match="negative dose"):
        StoredInfluence.from_scipy(csr_array(np.array([[1.0, -0.1]])), (1, 1, 2))
    with pytest.raises(ValueError, match="2 columns, expected 6"):
        StoredInfluence.from_scipy(csr_array(np.ones((1, 2))), (1, 2, 3))


def test_any_cut_of_a_file_is_named(pair: tuple[PencilBeamOperator, StoredInfluence], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    pair[1].save(whole)
    content = whole.read_bytes()
    for share in (0.0, 0.00001, 0.5, 0.999):
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"cut\.safetensors"):
            StoredInfluence.load(cut)
