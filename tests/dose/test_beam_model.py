"""The built-in beam has the depth dose and output factors of a 6 MV linac; machine files are read or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from lightning_vmat.dose.beam_model import BeamModel, load_beam_model
from lightning_vmat.dose.nyholm import kernel_terms

DEPTH_MM = torch.arange(0.0, 350.0, dtype=torch.double)


@pytest.fixture(scope="module")
def generic() -> BeamModel:
    return load_beam_model("generic_6mv")


def percentage_depth_dose(model: BeamModel) -> torch.Tensor:
    dose = model.square_field_dose(100.0, DEPTH_MM) * (1000 / (1000 + DEPTH_MM)) ** 2
    return dose / dose.max()


def test_depth_dose(generic: BeamModel) -> None:
    pdd = percentage_depth_dose(generic)
    assert 14 <= int(pdd.argmax()) <= 16
    assert 0.66 <= float(pdd[100]) <= 0.67
    for depth_mm, original in ((50, 0.856), (100, 0.662), (150, 0.503)):
        assert float(pdd[depth_mm]) == pytest.approx(original, rel=0.01)
    assert float(pdd[200]) == pytest.approx(0.980 * 0.380, rel=0.005)  # what widening kernels cost
    assert float(pdd[300]) == pytest.approx(0.955 * 0.216, rel=0.005)
    assert bool((pdd[15:].diff() < 0).all())


def test_tissue_phantom_ratio(generic: BeamModel) -> None:
    dose = generic.square_field_dose(100.0, DEPTH_MM)
    assert float(dose[200] / dose[100]) == pytest.approx(0.667, abs=0.005)
    assert float(dose[50] / dose[100]) == pytest.approx(1.187, rel=0.01)
    assert float(dose[20] / dose[100]) == pytest.approx(0.99 * 1.297, rel=0.005)  # lowered near the surface


@pytest.mark.parametrize(
    ("side_mm", "factor"), [(40.0, 0.913), (50.0, 0.9305), (80.0, 0.975), (200.0, 1.082), (300.0, 1.128)]
)
def test_phantom_output_factors(generic: BeamModel, side_mm: float, factor: float) -> None:
    dose = [float(generic.square_field_dose(side, DEPTH_MM)[100]) for side in (side_mm, 100.0)]
    assert dose[0] / dose[1] == pytest.approx(factor, rel=0.01)


def test_one_centigray_per_mu_at_the_reference_point(generic: BeamModel) -> None:
    dose = generic.square_field_dose(100.0, DEPTH_MM) * (1000 / (1000 + DEPTH_MM)) ** 2
    assert float(dose.max()) == pytest.approx(0.01, rel=1e-6)


def test_weights_are_linear_between_depths_and_constant_beyond(generic: BeamModel) -> None:
    at = generic.weights(torch.tensor([-1.0, 0.0, 10.0, 10.5, 11.0, 600.0, 900.0], dtype=torch.double))
    torch.testing.assert_close(at[:, 3], (at[:, 2] + at[:, 4]) / 2)
    torch.testing.assert_close(at[:, [0, 6]], at[:, [1, 5]])


def test_nyholm_check_values() -> None:
    (primary, slope_a), (scatter, slope_b) = kernel_terms(0.72, np.array([100.0]))
    assert slope_a[0] * 10 == pytest.approx(3.384141, rel=1e-5)  # the published values, per cm
    assert slope_b[0] * 10 == pytest.approx(0.1359131, rel=1e-5)
    assert primary[0] / (2 * np.pi) * slope_a[0] * 10 == pytest.approx(0.00850405, rel=1e-5)
    assert scatter[0] / (2 * np.pi) * slope_b[0] * 10 == pytest.approx(1.0281337e-4, rel=1e-5)


def test_beam_models_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such_model"):
        load_beam_model("no_such_model")
    broken = tmp_path / "broken.mat"
    broken.write_bytes(b"not a mat file")
    with pytest.raises(ValueError, match="not a matRad photon machine"):
        load_beam_model(broken)
    savemat(tmp_path / "other.mat", {"machine": {"data": 1}})
    with pytest.raises(ValueError, match="not a matRad photon machine"):
        load_beam_model(tmp_path / "other.mat")
    with pytest.raises(ValueError, match=r"expected 0\.60 to 0\.81"):
        kernel_terms(0.5, np.array([0.0]))
