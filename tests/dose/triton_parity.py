"""The Triton kernels against double precision; run by test_triton.py in the interpreter, or by hand where a GPU is.

pytest tests/dose/triton_parity.py                      # on a CUDA device
TRITON_INTERPRET=1 pytest tests/dose/triton_parity.py   # without one
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from water_case import water_case

from lightning_vmat.dose import _triton
from lightning_vmat.dose._reference import dose_influence
from lightning_vmat.dose.beam_model import load_beam_model
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.sampling import KernelView, Sampling, TableView
from lightning_vmat.dose.sparse_rows import SparseRows
from lightning_vmat.dose.stored_influence import StoredInfluence

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses deterministic mode
ROUNDING = 5e-5  # of the largest value: places among 100 nodes, in single precision, are known to 1e-5 of a node


@pytest.fixture(params=[False, True], ids=["fast", "deterministic"])
def deterministic(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With deterministic algorithms, torch also fills new memory with NaN: what a kernel leaves unwritten shows."""
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


def operator(voxels: int, control_points: int = 3) -> PencilBeamOperator:
    case = water_case(control_points=control_points, collimator_deg=20.0)
    index = case.body_index[:: len(case.body_index) // voxels][:voxels]
    return PencilBeamOperator.build(case, index).to(DEVICE)


def double_view(sampling: Sampling) -> TableView:
    """The same view by grid_sample in double precision, on the CPU: on a GPU its transpose has no fixed order."""
    sampling = sampling.to("cpu")
    parts = {name: getattr(sampling, name).double() for name in ("offset_mm", "axes", "depth_weights", "depth_mm")}
    whole = replace(sampling, kept=None, **parts)
    return TableView(slice(0, len(sampling.axes)), whole._look(), sampling.map_shape)


def assert_near(value: torch.Tensor, expected: torch.Tensor, tolerance: float = ROUNDING) -> None:
    expected = expected.to(value.device)
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


SIZES = pytest.mark.parametrize(("voxels", "control_points"), [(1, 1), (63, 3), (1000, 1), (64, 10)])


@SIZES
def test_sampling_and_its_transpose(voxels: int, control_points: int, deterministic: bool) -> None:
    sampling = operator(voxels, control_points).sampling
    view, exact = KernelView(slice(0, control_points), sampling), double_view(sampling)
    maps = torch.rand(control_points, 3, *sampling.map_shape, device=DEVICE) - 0.5
    dose = torch.randn(voxels, device=DEVICE)
    assert_near(view.forward(maps), exact.forward(maps.double().cpu()))
    assert_near(view.adjoint(dose), exact.adjoint(dose.double().cpu()))


@pytest.mark.parametrize("deterministic", [True], indirect=True)
def test_deterministic_transpose(deterministic: bool) -> None:
    sampling = operator(1000, 2).sampling
    view, dose = KernelView(slice(0, 2), sampling), torch.randn(1000, device=DEVICE)
    maps = view.adjoint(dose)
    assert_near(maps, double_view(sampling).adjoint(dose.double().cpu()))
    order = torch.randperm(1000, device=DEVICE)
    moved = replace(
        sampling, offset_mm=sampling.offset_mm[order], depth_mm=sampling.depth_mm[:, order].contiguous(), kept=None
    )
    assert torch.equal(KernelView(slice(0, 2), moved).adjoint(dose[order]), maps)  # to the last bit, in any order
    assert torch.equal(view.adjoint(torch.zeros(1000, device=DEVICE)), torch.zeros_like(maps))


def test_the_operator_in_deterministic_mode(deterministic: bool) -> None:
    whole = operator(64, 2)
    fluence = torch.rand(whole.fluence_shape, device=DEVICE)
    dose = whole.forward(fluence)
    assert torch.equal(whole.forward(fluence), dose)
    backed, again = whole.adjoint(dose), whole.adjoint(dose)
    assert torch.equal(backed, again) or not deterministic
    inner = (dose * dose).sum(), (backed * fluence).sum()
    torch.testing.assert_close(*inner, rtol=1e-4, atol=0)


def test_dose_and_gradient_against_the_definition() -> None:
    case = water_case(control_points=2, collimator_deg=17.0)
    index = case.body_index[::97]
    matrix = dose_influence(case, index, load_beam_model("generic_6mv")).flatten(1)
    projection = DoseProjection(PencilBeamOperator.build(case, index)).to(DEVICE)
    fluence = torch.rand(case.fluence_shape, device=DEVICE, requires_grad=True)
    weight = torch.rand(len(index), device=DEVICE)
    dose = projection(fluence)
    (gradient,) = torch.autograd.grad((dose * weight).sum(), fluence)
    for value, expected in (
        (dose, matrix @ fluence.detach().cpu().flatten().double()),
        (gradient.flatten(), weight.cpu().double() @ matrix),
    ):
        error = (value.detach().cpu().double() - expected).abs() / expected.max()
        assert float(error.max()) < 0.01
        assert float(error.square().mean().sqrt()) < 0.001


@pytest.mark.parametrize("rows", [1, 63, 1000])
@pytest.mark.parametrize(("batch", "value_type"), [(1, torch.float32), (3, torch.float32), (17, torch.float16)])
def test_rows_of_a_sparse_matrix(rows: int, batch: int, value_type: torch.dtype) -> None:
    if rows == 1000 and batch > 1:
        rows = 200  # the interpreter takes its time
    matrix = csr_array(random_array((rows, 700), density=0.02, rng=rows).tocoo())
    sparse = replace(SparseRows.from_scipy(matrix), value=torch.from_numpy(matrix.sorted_indices().data).to(value_type))
    vectors = torch.randn(batch, 700, device=DEVICE)
    transpose = torch.from_numpy(matrix.toarray().T).to(DEVICE)
    expected, parts = vectors.double() @ transpose, vectors.double().abs() @ transpose  # all elements are positive
    roundoff = 0.0 if value_type == torch.float32 else 2.0**-11  # of each element, so of the sum of the parts
    assert bool(((sparse.to(DEVICE).product(vectors) - expected).abs() <= (roundoff + ROUNDING) * parts).all())


@pytest.mark.parametrize(
    ("voxels", "value_type", "roundoff"),
    [(1, torch.float32, 0.0), (1000, torch.float32, 0.0), (63, torch.float16, 2.0**-11), (63, torch.bfloat16, 2.0**-8)],
)
def test_stored_influence_and_its_gradient(voxels: int, value_type: torch.dtype, roundoff: float) -> None:
    """Each element errs by its rounding and no more: sums are in single precision."""
    dense = random_array((voxels, 24), density=0.5, rng=np.random.default_rng(voxels)).toarray()
    stored = StoredInfluence.from_scipy(csr_array(dense), (2, 3, 4))
    matrix, transpose = (replace(m, value=m.value.to(value_type)) for m in (stored.matrix, stored.transpose))
    projection = DoseProjection(replace(stored, matrix=matrix, transpose=transpose)).to(DEVICE)
    fluence = torch.rand(2, 2, 3, 4, device=DEVICE, requires_grad=True)
    weight = torch.rand(2, voxels, device=DEVICE)
    dose = projection(fluence)
    (gradient,) = torch.autograd.grad((dose * weight).sum(), fluence)
    exact = torch.from_numpy(dense).to(DEVICE)
    for value, expected in (
        (dose.detach(), fluence.detach().flatten(1).double() @ exact.T),
        (gradient.flatten(1), weight.double() @ exact),
    ):
        assert value.dtype == torch.float32
        assert bool(((value - expected).abs() <= (roundoff + ROUNDING) * expected).all())


def test_a_long_row_and_an_empty_one() -> None:
    row_start = torch.tensor([0, 0, 3000], dtype=torch.int32)
    sparse = SparseRows(row_start, torch.arange(3000, dtype=torch.int32), torch.ones(3000), 3000).to(DEVICE)
    assert sparse.product(torch.ones(3000, device=DEVICE)).tolist() == [0.0, 3000.0]


def test_tables_out_of_order_are_refused() -> None:
    sampling = operator(63).sampling
    turned = replace(sampling, depth_weights=sampling.depth_weights.T.contiguous().T)
    with pytest.raises(ValueError, match="not contiguous"):
        _triton.spread(turned, torch.ones(63, device=DEVICE), deterministic=False)


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a CUDA device")
def test_a_cuda_graph_records_forward_and_adjoint() -> None:
    pencil_beam = operator(1000)
    fluence = torch.rand(pencil_beam.fluence_shape, device=DEVICE)
    expected = pencil_beam.adjoint(pencil_beam.forward(fluence))  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        again = pencil_beam.adjoint(pencil_beam.forward(fluence))
    torch.cuda.set_sync_debug_mode("default")
    graph.replay()
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))
