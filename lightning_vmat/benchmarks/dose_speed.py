"""Time, memory and bandwidth of linear maps on a device, and the lower bound of their time."""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lightning_vmat.cases.sizes import get_size
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import sample_voxels

COPY_BYTES = 2**28
MATRIX_SIDE = 1024


@dataclass(frozen=True)
class Device:
    """Measured peak performance of a device.

    Args:
        name: name of the device in torch.
        hardware: name of the hardware.
        copy_gb_s: bytes read and written by a copy of 256 MB, GB/s.
        matmul_gflop_s: rate of a 1024 x 1024 x 1024 single precision product.
    """

    name: str
    hardware: str
    copy_gb_s: float
    matmul_gflop_s: float

    @classmethod
    def measure(cls, name: str, repeats: int) -> Device:
        """Measure copy bandwidth and matrix multiplication of a device; medians of the repeats."""
        source = torch.ones(COPY_BYTES // 4, device=name)
        target = torch.empty_like(source)
        square = torch.rand(MATRIX_SIDE, MATRIX_SIDE, device=name)
        copy_s = median_seconds(lambda: target.copy_(source), name, repeats)
        matmul_s = median_seconds(lambda: square @ square, name, repeats)
        return cls(name, _hardware(name), 2 * COPY_BYTES / copy_s / 1e9, 2 * MATRIX_SIDE**3 / matmul_s / 1e9)

    def bound_s(self, work: Work) -> float:
        """Lower bound of the time, s (roofline): bytes at the speed of a copy, or operations at that of a large one."""
        return max(work.gigabytes / self.copy_gb_s, work.gigaflops / self.matmul_gflop_s)


@dataclass(frozen=True)
class Work:
    """Least work of one forward or one adjoint.

    Args:
        gigabytes: bytes read and written, each once, GB.
        gigaflops: operations of matrix products, GFLOP.
    """

    gigabytes: float
    gigaflops: float


@dataclass(frozen=True)
class SpeedRow:
    """One line of the table; without figures, but with a reason, if a method could not run."""

    size: str
    method: str
    setup_s: float | None = None
    forward_ms: float | None = None
    adjoint_ms: float | None = None
    peak_mb: float | None = None
    gb_s: float | None = None
    bound_ms: float | None = None
    note: str = ""


def measure(
    size: str,
    method: str,
    setup_s: float,
    moves: Sequence[Callable[[], object]],
    work: Work,
    device: Device,
    repeats: int,
) -> SpeedRow:
    """Measure medians of forward and adjoint (`moves`), the peak of added memory, and the effective bandwidth."""
    peak_mb = added_memory_mb(lambda: [move() for move in moves], device.name)
    forward_s, adjoint_s = (median_seconds(move, device.name, repeats) for move in moves)
    return SpeedRow(
        size=size,
        method=method,
        setup_s=setup_s,
        forward_ms=1e3 * forward_s,
        adjoint_ms=1e3 * adjoint_s,
        peak_mb=peak_mb,
        gb_s=2 * work.gigabytes / (forward_s + adjoint_s),
        bound_ms=1e3 * device.bound_s(work),
    )


def check_device(device: str) -> None:
    """Raise a ValueError for a device that is neither the CPU nor a GPU of this machine."""
    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueError(f"device {device}: expected cpu, or cuda with a GPU")


def median_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median time of a call, s, after a first call that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def synchronise(device: str) -> None:
    """Wait until a CUDA device has finished; nothing on a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def added_memory_mb(call: Callable[[], object], device: str) -> float | None:
    """Peak of memory added during a call, MB; of the process on a Linux CPU, None on other CPUs."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is still held would hide new allocations
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _status_kb("VmRSS")
        call()
        return (_status_kb("VmHWM") - before) * 1024 / 1e6
    except (OSError, AttributeError, TypeError):
        return None


def _status_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _hardware(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def pencil_beam_row(size: str, case: Case, device: Device, repeats: int) -> tuple[PencilBeamOperator, SpeedRow]:
    """Row of the pencil beam on a case's voxel sample, including set-up."""
    index = sample_voxels(case, get_size(size).optimised_voxels).index
    start = time.perf_counter()
    operator = PencilBeamOperator.build(case, index).to(device.name)
    synchronise(device.name)
    setup_s = time.perf_counter() - start
    x = torch.ones(operator.fluence_shape, device=device.name)
    g = torch.ones(operator.voxel_count, device=device.name)
    moves = (lambda: operator.forward(x), lambda: operator.adjoint(g))
    row = measure(size, "pencil beam", setup_s, moves, pencil_beam_work(operator), device, repeats)
    return operator, replace(row, note=f"{len(case.control_points)} control points x {operator.voxel_count} voxels")


def pencil_beam_work(operator: PencilBeamOperator) -> Work:
    """Work of one forward; an adjoint has the same.

    Bytes: the tensors that the device's code reads, once; fluence and dose. On a CUDA device also the maps, written and
    read, before and after mixing; on a CPU they stay in its cache. Products: both sides of the blur, and the mixing.
    """
    blur, sampling = operator.blur, operator.sampling
    control_points, leaf_pairs, beamlets = operator.fluence_shape
    rows, columns = sampling.map_shape
    kernels, gaussians = blur.mixture.shape
    read = sampling.kept if sampling.kept is not None else sampling
    size = sum(t.nbytes for t in (*vars(read).values(), *vars(blur).values()) if isinstance(t, Tensor))
    size += 4 * (control_points * leaf_pairs * beamlets + operator.voxel_count)
    if sampling.offset_mm.is_cuda:
        size += 2 * 4 * control_points * (kernels + gaussians) * rows * columns
    a_map = (
        gaussians * (leaf_pairs * beamlets * columns + rows * leaf_pairs * columns)
        + kernels * gaussians * rows * columns
    )
    return Work(size / 1e9, 2 * control_points * a_map / 1e9)


def as_table(rows: Sequence[SpeedRow]) -> str:
    """The rows as a Markdown table."""
    heads = ("size", "method", "set-up s", "forward ms", "adjoint ms", "peak MB", "GB/s", "bound ms", "note")
    lines = ["| " + " | ".join(heads) + " |", "|---|---" + "|---:" * 6 + "|---|"]
    for row in rows:
        cells = ("" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in asdict(row).values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
