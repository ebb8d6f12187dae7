"""The projection as a PyTorch operator: registered properly, compiled, batched, copied, moved, in half precision."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from water_case import water_case

from lightning_vmat.dose._op import backproject, name_kind, project
from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.stored_influence import StoredInfluence


def make(kind: str, voxels: int = 40, field_mm: float = 40.0) -> DoseOperator:
    case = water_case(control_points=2, collimator_deg=20.0, field_mm=field_mm, beamlets=4)
    pencil_beam = PencilBeamOperator.build(case, case.body_index[:: len(case.body_index) // voxels][:voxels])
    return pencil_beam if kind == "pencil_beam" else StoredInfluence.from_operator(pencil_beam)


@pytest.fixture(scope="module", params=["pencil_beam", "stored"])
def operator(request: pytest.FixtureRequest) -> DoseOperator:
    return make(request.param)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the tests' runtime type checks, which no compiler sees through."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch.compiler.reset()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("batch", [(), (3,)])
def test_opcheck(operator: DoseOperator, batch: tuple[int, ...]) -> None:
    handed_over = operator.tensors(), name_kind(operator), operator.settings()
    torch.library.opcheck(project, (torch.rand(*batch, *operator.fluence_shape, requires_grad=True), *handed_over))
    torch.library.opcheck(backproject, (torch.rand(*batch, operator.voxel_count, requires_grad=True), *handed_over))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, inside inductor
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_whole_and_equal(operator: DoseOperator, backend: str) -> None:
    projection = DoseProjection(operator)

    def objective(fluence: Tensor) -> Tensor:
        return (projection(fluence.relu() * 2) - 1).square().mean()

    fluence = torch.rand(2, *operator.fluence_shape, requires_grad=True)
    compiled = torch.compile(objective, fullgraph=True, backend=backend)
    value, expected = compiled(fluence), objective(fluence)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v, fluence)[0] for v in (value, expected)))


@pytest.mark.usefixtures("unchecked")
def test_one_compiled_graph_serves_patients_of_the_same_shapes() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    first, second = (make("stored", 40, field_mm) for field_mm in (40.0, 60.0))

    @torch.compile(fullgraph=True, backend=backend, dynamic=True)
    def dose(fluence: Tensor, tensors: list[Tensor], kind: str, settings: str) -> Tensor:
        return project(fluence, tensors, kind, settings)

    fluence = torch.rand(first.fluence_shape)
    for operator in (first, second):
        value = dose(fluence, operator.tensors(), name_kind(operator), operator.settings())
        torch.testing.assert_close(value, operator.forward(fluence))
    assert len(graphs) == 1


def test_a_batch_is_its_items(operator: DoseOperator) -> None:
    fluence = torch.rand(2, 3, *operator.fluence_shape)
    dose = DoseProjection(operator)(fluence)
    one_by_one = torch.stack([operator.forward(item) for item in fluence.flatten(0, 1)])
    torch.testing.assert_close(dose.flatten(0, 1), one_by_one)


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.float16, 2.0**-11), (torch.bfloat16, 2.0**-8)])
def test_half_precision_costs_its_rounding_and_no_more(
    operator: DoseOperator, dtype: torch.dtype, roundoff: float
) -> None:
    """Each beamlet errs by at most `roundoff` of itself, so does dose, all elements being positive."""
    fluence = 1e-2 + torch.rand(operator.fluence_shape)  # normal numbers in both types
    stored = operator if isinstance(operator, StoredInfluence) else StoredInfluence.from_operator(operator)
    rounded = fluence.to(dtype).requires_grad_()
    dose = DoseProjection(stored)(rounded)
    assert dose.dtype == torch.float32
    exact = stored.forward(fluence.double())
    assert bool(((dose - exact).abs() <= (roundoff + 1e-5) * exact).all())
    (gradient,) = torch.autograd.grad(dose.sum(), rounded)
    expected = stored.adjoint(torch.ones(stored.voxel_count))
    assert gradient.dtype == dtype
    assert bool(((gradient - expected).abs() <= (roundoff + 1e-5) * expected).all())


def test_autocast_does_not_lower_the_dose(operator: DoseOperator) -> None:
    projection, fluence = DoseProjection(operator), torch.rand(operator.fluence_shape)
    with torch.autocast("cpu", torch.bfloat16):
        dose = projection(fluence)
    assert torch.equal(dose, projection(fluence))


def test_copies_and_pickles_live_on_their_own(operator: DoseOperator) -> None:
    projection, fluence = DoseProjection(operator), torch.rand(operator.fluence_shape)
    dose = projection(fluence)
    for again in (copy.deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        assert torch.equal(again(fluence), dose)
        assert {t.data_ptr() for t in again.tensors}.isdisjoint(t.data_ptr() for t in projection.tensors)
    start = fluence.requires_grad_()
    value = DoseProjection(make("stored"))(start).sum()  # its operator is gone when the gradient is asked for
    assert torch.autograd.grad(value, start)[0].shape == start.shape


def test_the_operator_follows_devices_but_not_precision(operator: DoseOperator) -> None:
    module = nn.Sequential(nn.Linear(4, 4), DoseProjection(operator))
    assert all("1." not in name for name in (*module.state_dict(), *dict(module.named_buffers())))
    kinds = [t.dtype for t in operator.tensors()]
    assert [t.dtype for t in module.to(torch.bfloat16)[1].tensors] == kinds  # type: ignore[union-attr]
    module.to("meta")
    assert {t.device.type for t in module[1].tensors} == {"meta"}  # type: ignore[union-attr]
    assert {t.device.type for t in operator.tensors()} == {"cpu"}
