"""Baselines for the speed of the dose operators: their truncated matrix in sparse storage, and pydosert."""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from scipy.sparse import csr_array, hstack

from lightning_vmat.benchmarks.dose_speed import Device, SpeedRow, Work, measure, median_seconds, pencil_beam_work
from lightning_vmat.dose.pencil_beam import PencilBeamOperator
from lightning_vmat.dose.projection import DoseProjection
from lightning_vmat.dose.stored_influence import StoredInfluence
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case

DOSE_ERROR = 0.01  # allowed error of truncation, as a fraction of the largest dose of an even field
THRESHOLDS = np.logspace(-1, -4, 25)  # of the largest element of a column
BYTES = 30  # bytes per element while A and its transpose are built
SAMPLED, SAMPLED_VOXELS = 6, 10_000  # control points, and about how many voxels, on which the threshold is chosen
PYDOSERT_CONTROL_POINTS = 12
PYDOSERT_REACH_MM = 60.0  # reach of its kernel, where scatter ends


def sparse_rows(size: str, operator: PencilBeamOperator, device: Device, repeats: int) -> list[SpeedRow]:
    """Rows of stored influence, torch.sparse and scipy, with the operator's matrix truncated to `DOSE_ERROR`."""
    names = ("stored influence, 1 %", "torch.sparse CSR, 1 %", "scipy CSR, 1 %")
    start = time.perf_counter()
    threshold, share = find_threshold(operator)
    elements = share * operator.voxel_count * float(np.prod(operator.fluence_shape))
    needed, free = BYTES * elements / 1e9, free_gb()
    if needed > free / 2 or elements > 2**31 - 1:
        reason = f"skipped: {elements:.2g} elements need {needed:.0f} GB, {free:.0f} GB are free"
        return [SpeedRow(size, name, note=reason) for name in names]
    matrix = truncated_matrix(operator, threshold)
    transpose = matrix.T.tocsr()
    stored = StoredInfluence.from_scipy(matrix, operator.fluence_shape).to(device.name)
    setup_s = time.perf_counter() - start
    work = Work((8 * matrix.nnz + 8 * sum(matrix.shape)) / 1e9, 0.0)
    fluence, dose = torch.ones(operator.fluence_shape), torch.ones(operator.voxel_count)
    x, g = fluence.to(device.name), dose.to(device.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        sparse = [
            torch.sparse_csr_tensor(r.row_start, r.column, r.value, r.shape, check_invariants=False)
            for r in (stored.matrix, stored.transpose)
        ]
    flat_x, flat_g = x.flatten()[:, None], g[:, None]
    scipy_x, scipy_g = fluence.flatten().numpy(), dose.numpy()
    moves = (
        (lambda: stored.forward(x), lambda: stored.adjoint(g)),
        (lambda: sparse[0] @ flat_x, lambda: sparse[1] @ flat_g),
        (lambda: matrix @ scipy_x, lambda: transpose @ scipy_g),
    )
    note = f"{matrix.nnz:.2g} elements, {100 * share:.0f} % of all"
    cpu = replace(device, name="cpu")
    return [
        replace(measure(size, name, setup_s, pair, work, where, repeats), note=note)
        for name, pair, where in zip(names, moves, (device, device, cpu), strict=True)
    ]


def find_threshold(operator: PencilBeamOperator) -> tuple[float, float]:
    """The largest threshold that preserves the dose of an even field, and the share of elements that it keeps."""
    count = operator.fluence_shape[0]
    chosen = sorted({round(i) for i in np.linspace(0, count - 1, min(SAMPLED, count))})
    every = max(1, operator.voxel_count // SAMPLED_VOXELS)
    voxels = len(range(0, operator.voxel_count, every))
    lost = np.zeros((len(THRESHOLDS), voxels))
    kept, dose = np.zeros(len(THRESHOLDS)), np.zeros(voxels)
    for control_point in chosen:
        block = operator.block(control_point).flatten(1)
        largest = block.amax(dim=0).cpu()
        block = block[::every].cpu()
        dose += block.sum(dim=1).numpy()
        for number, threshold in enumerate(THRESHOLDS):
            small = block <= float(threshold) * largest
            lost[number] += (block * small).sum(dim=1).numpy()
            kept[number] += 1 - float(small.float().mean())
    error = np.abs(lost).max(axis=1) / dose.max()
    number = int(np.argmax(error <= DOSE_ERROR)) if (error <= DOSE_ERROR).any() else len(THRESHOLDS) - 1
    return float(THRESHOLDS[number]), float(kept[number] / len(chosen))


def truncated_matrix(operator: PencilBeamOperator, threshold: float) -> csr_array:
    """The matrix [voxel, flat beamlet] without elements below a fraction of the largest one of their column."""
    blocks = []
    for control_point in range(operator.fluence_shape[0]):
        block = operator.block(control_point).flatten(1).cpu()
        blocks.append(csr_array((block * (block > threshold * block.amax(dim=0))).numpy()))
    return csr_array(hstack(blocks, format="csr"))


def pydosert_rows(size: str, case: Case, device: Device, repeats: int) -> list[SpeedRow]:
    """Rows of pydosert and the pencil beam, forward and backward, on all voxels of the grid and a few control points.

    Reference: pydosert 1.5, Nyholm kernels on planes of the beam's-eye view, rotated to the patient.
    """
    few = replace(case, arcs=(Arc(control_points=PYDOSERT_CONTROL_POINTS),))
    label = f"{PYDOSERT_CONTROL_POINTS} control points x {case.grid.voxel_count} voxels"
    start = time.perf_counter()
    operator = PencilBeamOperator.build(few, torch.arange(case.grid.voxel_count)).to(device.name)
    build_s = time.perf_counter() - start
    x = torch.ones(operator.fluence_shape, device=device.name)
    g = torch.ones(operator.voxel_count, device=device.name)
    moves = (lambda: operator.forward(x), lambda: operator.adjoint(g))
    ours = measure(size, "pencil beam, whole grid", build_s, moves, pencil_beam_work(operator), device, repeats)
    ours = replace(ours, note=label)
    if find_spec("pydosert") is None:
        return [ours, SpeedRow(size, "pydosert", note="skipped: not installed")]
    from pydosert import BeamSequence, DoseEngine, MachineConfig

    corner_to_isocentre = tuple(i - o for i, o in zip(case.isocentre_mm, case.grid.origin_mm, strict=True))
    start = time.perf_counter()
    beams = BeamSequence.create(
        gantry_angles_deg=few.control_points.gantry_deg.tolist(),
        number_of_leaf_pairs=60,
        field_size=(400, 400),
        iso_center=corner_to_isocentre[::-1],
        open_field_size=100.0,
        device=device.name,
    )
    engine = DoseEngine(
        machine_config=MachineConfig(preset="varian_10MV"),
        kernel_size=2 * round(PYDOSERT_REACH_MM / case.grid.spacing_mm[0]) + 1,
        dose_grid_spacing=case.grid.spacing_mm[::-1],
        dose_grid_shape=case.grid.shape,
        beam_template=beams,
        device=device.name,
    )
    setup_s = time.perf_counter() - start
    density = (1 + case.hu / 1000).clamp(min=0).to(device.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of voxels far from the isocentre, and of autocast on a CPU
        both_s = median_seconds(
            lambda: engine.compute_dose(beams, density_image=density).sum().backward(), device.name, 1
        )
    x.requires_grad_()
    projection = DoseProjection(operator)
    ours_s = median_seconds(lambda: torch.autograd.grad(projection(x).sum(), x), device.name, repeats)
    note = (
        f"{label}: forward + backward {1e3 * both_s:.0f} ms, {both_s / ours_s:.0f} times the pencil beam's "
        f"{1e3 * ours_s:.0f} ms; {both_s / (ours_s + build_s):.0f} times with the pencil beam's set-up "
        "(pydosert traces its depths in every call)"
    )
    return [ours, SpeedRow(size, "pydosert", setup_s=setup_s, note=note)]


def free_gb() -> float:
    """Free memory, GB."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
