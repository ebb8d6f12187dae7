"""`vmat benchmark dose`: a table on stdout, figures in JSON, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_vmat.benchmarks import dose_baselines as dose_rivals
from lightning_vmat.benchmarks import dose_judging
from lightning_vmat.benchmarks.dose_baselines import DOSE_ERROR, find_threshold, sparse_rows, truncated_matrix
from lightning_vmat.benchmarks.dose_speed import Device, Work, added_memory_mb
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.cli import main
from lightning_vmat.dose.pencil_beam import PencilBeamOperator

DEVICE = Device("cpu", "test", copy_gb_s=10.0, matmul_gflop_s=100.0)


@pytest.fixture(scope="module")
def operator() -> PencilBeamOperator:
    case = make_phantom(0, "tiny")
    return PencilBeamOperator.build(case, case.body_index[::60])


def test_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "dose", "--sizes", "[tiny]", "--repeats", "1", "--json", str(tmp_path / "speed.json")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"]
    assert figures["device"]["copy_gb_s"] > 0
    methods = [row["method"] for row in figures["rows"]]
    *timed, judging = figures["rows"]
    assert methods[:-1] == ["pencil beam", "stored influence, 1 %", "torch.sparse CSR, 1 %", "scipy CSR, 1 %"]
    assert all(row["forward_ms"] > 0 and row["adjoint_ms"] > 0 and row["bound_ms"] > 0 for row in timed)
    assert judging["method"] == "pencil beam, body, 0.25 mm nodes"
    assert judging["setup_s"] > 0 and judging["forward_ms"] > 0
    assert all(f"| tiny | {method} |" in shown for method in methods)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "[huge]"], "size 'huge'"),
        (["--repeats", "0"], "0 repeats"),
        (["--device", "tpu"], "device tpu: expected cpu, or cuda"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "dose", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_truncation_costs_the_dose_that_it_may(operator: PencilBeamOperator) -> None:
    threshold, share = find_threshold(operator)
    matrix = truncated_matrix(operator, threshold)
    exact = operator.forward(torch.ones(operator.fluence_shape)).numpy()
    error = np.abs(matrix @ np.ones(matrix.shape[1]) - exact).max() / exact.max()
    assert 0 < error < 1.2 * DOSE_ERROR  # chosen on some of the control points
    assert matrix.nnz == pytest.approx(share * np.prod(matrix.shape), rel=0.2)


def test_matrices_too_large_for_the_memory_are_skipped(
    operator: PencilBeamOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dose_rivals, "BYTES", 10**9)
    rows = sparse_rows("tiny", operator, DEVICE, 1)
    assert all(row.forward_ms is None and "skipped" in row.note and "GB are free" in row.note for row in rows)


def test_the_bound_is_the_slower_of_memory_and_arithmetic() -> None:
    assert DEVICE.bound_s(Work(gigabytes=1.0, gigaflops=1.0)) == pytest.approx(0.1)
    assert DEVICE.bound_s(Work(gigabytes=0.01, gigaflops=1.0)) == pytest.approx(0.01)


def test_set_up_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dose_judging, "SETUP_VOXELS", 100)
    row = dose_judging.setup_row("tiny", make_phantom(0, "tiny"), DEVICE)
    assert row.setup_s is not None and row.setup_s > 0 and row.note == "12 control points x 100 voxels"


def test_memory_that_a_call_adds_is_seen() -> None:
    added = added_memory_mb(lambda: torch.ones(25_000_000), "cpu")
    assert added is None or 90 < added < 200
