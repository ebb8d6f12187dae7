"""Every dose operator: linear, its adjoint exact, differentiable twice."""

from __future__ import annotations

import math

import pytest
import torch
from water_case import water_case

from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.stored_influence import StoredInfluence


@pytest.fixture(scope="module", params=["pencil_beam", "stored"])
def operator(request: pytest.FixtureRequest) -> DoseOperator:
    case = water_case(control_points=3, collimator_deg=20.0)
    operator = PencilBeamOperator.build(case, case.body_index[::17])
    return operator if request.param == "pencil_beam" else StoredInfluence.from_operator(operator)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_adjoint_is_the_transpose(operator: DoseOperator, batch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    fluence, dose = torch.rand(*batch, *operator.fluence_shape), torch.randn(*batch, operator.voxel_count)
    forward = (operator.forward(fluence).double() * dose).sum()
    backward = (fluence.double() * operator.adjoint(dose)).sum()
    torch.testing.assert_close(forward, backward, rtol=1e-5, atol=1e-6 * float(forward.abs()))


def test_forward_is_linear_and_dose_is_not_negative(operator: DoseOperator) -> None:
    a, b = torch.rand(2, *operator.fluence_shape)
    torch.testing.assert_close(
        operator.forward(2 * a - 3 * b), 2 * operator.forward(a) - 3 * operator.forward(b), rtol=1e-4, atol=1e-3
    )
    assert float(operator.forward(a).min()) > 0  # scatter reaches every voxel


def test_gradients_of_first_and_second_order(operator: DoseOperator) -> None:
    projection = DoseProjection(operator)
    picked = torch.randperm(math.prod(operator.fluence_shape), generator=torch.Generator().manual_seed(0))[:6]

    def fluence_of(values: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros(math.prod(operator.fluence_shape), dtype=torch.double)
        return empty.index_add(0, picked, values).view(operator.fluence_shape)

    alone_gy = operator.forward(fluence_of(torch.ones(6, dtype=torch.double)))
    seen = alone_gy.topk(20).indices

    def relative_square(values: torch.Tensor) -> torch.Tensor:
        return (projection(fluence_of(values))[seen] / alone_gy.max()) ** 2

    values = 0.5 + torch.rand(6, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    values.requires_grad_()
    (slope,) = torch.autograd.grad(relative_square(values).sum(), values)
    assert float(slope.abs().max()) > 1.0  # so that the tolerances below can see an error
    assert torch.autograd.gradcheck(relative_square, values, eps=0.05, atol=1e-3, rtol=1e-3)
    assert torch.autograd.gradgradcheck(relative_square, values, eps=0.05, atol=1e-3, rtol=1e-3)


def test_wrong_shapes_are_named(operator: DoseOperator) -> None:
    with pytest.raises(ValueError, match=r"fluence of shape \(3, 4, 5\)"):
        operator.forward(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match=r"dose of shape \(3,\)"):
        operator.adjoint(torch.zeros(3))
