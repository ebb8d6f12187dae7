"""The cost of judging a plan: set-up on many voxels, and one dose calculation of the whole body on fine nodes."""

from __future__ import annotations

import time

import torch

from lightning_vmat.benchmarks.dose_speed import Device, SpeedRow, added_memory_mb, median_seconds, synchronise
from lightning_vmat.dose.blur import FINE_NODE_STEP_MM
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.voxels import sample_voxels
from lightning_vmat.planning.body_dose import with_half_sectors

SETUP_VOXELS = 100_000


def setup_row(size: str, case: Case, device: Device) -> SpeedRow:
    """Row of the set-up alone, on `SETUP_VOXELS` voxels; nearly all of it is radiological depth."""
    index = sample_voxels(case, SETUP_VOXELS).index
    setup_s, operator = _timed_build(case, index, device, FINE_NODE_STEP_MM)
    return SpeedRow(size, "pencil beam, set-up", setup_s=setup_s, note=_extent(operator))


def judging_row(size: str, case: Case, device: Device) -> SpeedRow:
    """Row of one dose calculation of the whole body, as plans are judged: at two gantry angles per sector."""
    setup_s, operator = _timed_build(with_half_sectors(case), case.body_index, device, FINE_NODE_STEP_MM)
    fluence = torch.ones(operator.fluence_shape, device=device.name)
    peak_mb = added_memory_mb(lambda: operator.forward(fluence), device.name)
    forward_s = median_seconds(lambda: operator.forward(fluence), device.name, 1)
    return SpeedRow(
        size=size,
        method=f"pencil beam, body, {FINE_NODE_STEP_MM:g} mm nodes",
        setup_s=setup_s,
        forward_ms=1e3 * forward_s,
        peak_mb=peak_mb,
        note=_extent(operator),
    )


def _timed_build(
    case: Case, index: torch.Tensor, device: Device, node_step_mm: float
) -> tuple[float, PencilBeamOperator]:
    start = time.perf_counter()
    operator = PencilBeamOperator.build(case, index, node_step_mm=node_step_mm).to(device.name)
    synchronise(device.name)
    return time.perf_counter() - start, operator


def _extent(operator: PencilBeamOperator) -> str:
    return f"{operator.fluence_shape[0]} control points x {operator.voxel_count} voxels"
