"""Triton kernels without a GPU: what they compute, in the interpreter; and that they compile for sm_80 and sm_90."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
HERE = Path(__file__).parent


def test_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "triton_parity.py")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile(capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lightning_vmat.dose import _triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pointers = {
        **dict.fromkeys(("maps", "offset", "axes", "table", "doses", "scales", "vectors", "products"), "*fp32"),
        "depth": "*fp16",
        "row_start": "*i32",
        "column": "*i32",
    }
    whole = ("points", "voxels", "points_each", "depths", "rows", "columns", "batch")
    for kernel, constants, types in (
        (_triton.sample_kernel, {"KERNELS": 3, "VOXELS": 64}, {}),
        (_triton.spread_kernel, {"KERNELS": 3, "VOXELS": 64, "FIXED_POINT": False}, {}),
        (_triton.spread_kernel, {"KERNELS": 3, "VOXELS": 64, "FIXED_POINT": True}, {"maps": "*i64"}),
        (_triton.row_kernel, {"BATCH": 1, "ELEMENTS": 512}, {"value": "*fp32"}),
        (_triton.row_kernel, {"BATCH": 16, "ELEMENTS": 32}, {"value": "*fp16"}),
    ):
        known = pointers | dict.fromkeys(whole, "i32") | types
        signature = {n: "constexpr" if n in constants else known.get(n, "fp32") for n in kernel.arg_names}
        source = ASTSource(kernel, signature, constexprs=constants)
        options = {"enable_fp_fusion": False} | ({"num_warps": _triton.WARPS} if "VOXELS" in constants else {})
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        assert f"sm_{capability}" in compiled.asm["ptx"]
        assert len(compiled.asm["cubin"]) > 0
