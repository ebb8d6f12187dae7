"""Triton kernels for both dose operators; imported only for tensors on a device that needs them.

Nothing here synchronises with the device: grids depend on shapes alone, so that a CUDA graph can record every call
after the first, which compiles. Multiply-adds are not fused (`enable_fp_fusion=False`): these kernels are limited by
memory bandwidth, and the arithmetic is then that of Triton's interpreter, in which they are tested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.dose.blur import OUTER_STEP_MM

if TYPE_CHECKING:
    from lightning_vmat.dose.sampling import Sampling
    from lightning_vmat.dose.sparse_rows import SparseRows

VOXELS, WARPS = 64, 2  # of one program, with one thread for each voxel
SPLITS = 8  # programs that share the control points of a block of voxels
ELEMENTS = 512  # of a sparse row, loaded at once
FIXED_POINT_BITS = 40  # of the largest possible contribution; 2^22 of them still fit 63 bits
NEAREST = 4.0  # no voxel is nearer to the source than SAD / 4


@triton.jit
@no_type_check  # Triton reads the source; a checker's wrapper would hide it
def _node(position, low, high, before, nodes, inner_step, outer_step):
    """Node at or before a position, and the fraction of the way to the next node."""
    inside = tl.minimum(tl.maximum(position, low), high)
    place = before + (inside - low) / inner_step + (position - inside) / outer_step
    place = tl.minimum(tl.maximum(place, 0.0), nodes - 1.0)
    node = tl.minimum(place.to(tl.int32), nodes - 2)
    return node, place - node.to(tl.float32)


@triton.jit
@no_type_check
def _look(
    offset, depth, axis, voxel, inside, depths, rows, columns, sad_mm,
    x_low, x_high, x_before, x_step, y_low, y_high, y_before, y_step, outer_step,
):  # fmt: skip
    """Column, row and depth layer of voxels for a control point, each with its fraction; and the inverse square."""
    x = tl.load(offset + voxel * 3, inside, 0.0)
    y = tl.load(offset + voxel * 3 + 1, inside, 0.0)
    z = tl.load(offset + voxel * 3 + 2, inside, 0.0)
    bev_x = tl.load(axis) * x + tl.load(axis + 1) * y + tl.load(axis + 2) * z
    bev_y = tl.load(axis + 3) * x + tl.load(axis + 4) * y + tl.load(axis + 5) * z
    bev_z = tl.load(axis + 6) * x + tl.load(axis + 7) * y + tl.load(axis + 8) * z
    magnification = sad_mm / (sad_mm - bev_z)
    column, across = _node(bev_x * magnification, x_low, x_high, x_before, columns, x_step, outer_step)
    row, along = _node(bev_y * magnification, y_low, y_high, y_before, rows, y_step, outer_step)
    deep = tl.load(depth + voxel, inside, 0.0).to(tl.float32)
    deep = tl.minimum(tl.maximum(deep, 0.0), depths - 1.0)
    layer = tl.minimum(deep.to(tl.int32), depths - 2)
    return column, across, row, along, layer, deep - layer.to(tl.float32), magnification * magnification


@triton.jit
@no_type_check
def sample_kernel(
    maps, offset, depth, axes, table, doses, points, voxels, points_each, depths, rows, columns, sad_mm,
    x_low, x_high, x_before, x_step, y_low, y_high, y_before, y_step, outer_step,
    KERNELS: tl.constexpr, VOXELS: tl.constexpr,
):  # fmt: skip
    """Dose at a block of voxels from some of the control points: gather, weight, sum."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    inside = voxel < voxels
    first = tl.program_id(1) * points_each
    depth += first.to(tl.int64) * voxels
    maps += first.to(tl.int64) * KERNELS * rows * columns
    axis = axes + first * 9
    dose = tl.zeros([VOXELS], tl.float32)
    for _ in range(first, tl.minimum(first + points_each, points)):
        column, across, row, along, layer, between, inverse_square = _look(
            offset, depth, axis, voxel, inside, depths, rows, columns, sad_mm,
            x_low, x_high, x_before, x_step, y_low, y_high, y_before, y_step, outer_step,
        )  # fmt: skip
        node = row * columns + column
        for kernel in tl.static_range(KERNELS):
            corner = maps + kernel * rows * columns + node
            here = tl.load(corner, inside, 0.0) * (1 - across) + tl.load(corner + 1, inside, 0.0) * across
            corner += columns
            there = tl.load(corner, inside, 0.0) * (1 - across) + tl.load(corner + 1, inside, 0.0) * across
            entry = table + kernel * depths + layer
            weight = tl.load(entry) * (1 - between) + tl.load(entry + 1) * between
            dose += weight * inverse_square * (here * (1 - along) + there * along)
        depth += voxels
        maps += KERNELS * rows * columns
        axis += 9
    tl.store(doses + tl.program_id(1).to(tl.int64) * voxels + voxel, dose, inside)


@triton.jit
@no_type_check
def _add(target, value, inside, scale, FIXED_POINT: tl.constexpr):
    """Add to maps: in floating point, or scaled to integers, whose sum does not depend on the order."""
    if FIXED_POINT:
        tl.atomic_add(target, (value * scale).to(tl.int64), inside, sem="relaxed")
    else:
        tl.atomic_add(target, value, inside, sem="relaxed")


@triton.jit
@no_type_check
def spread_kernel(
    maps, scales, offset, depth, axes, table, doses, voxels, depths, rows, columns, sad_mm,
    x_low, x_high, x_before, x_step, y_low, y_high, y_before, y_step, outer_step,
    KERNELS: tl.constexpr, VOXELS: tl.constexpr, FIXED_POINT: tl.constexpr,
):  # fmt: skip
    """Transpose of `sample_kernel` for a block of voxels and one control point: weight, scatter."""
    voxel = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    inside = voxel < voxels
    point = tl.program_id(1)
    depth += point.to(tl.int64) * voxels
    maps += point.to(tl.int64) * KERNELS * rows * columns
    axis = axes + point * 9
    column, across, row, along, layer, between, inverse_square = _look(
        offset, depth, axis, voxel, inside, depths, rows, columns, sad_mm,
        x_low, x_high, x_before, x_step, y_low, y_high, y_before, y_step, outer_step,
    )  # fmt: skip
    dose = tl.load(doses + voxel, inside, 0.0) * inverse_square
    scale = tl.load(scales)
    node = row * columns + column
    for kernel in tl.static_range(KERNELS):
        corner = maps + kernel * rows * columns + node
        entry = table + kernel * depths + layer
        weight = (tl.load(entry) * (1 - between) + tl.load(entry + 1) * between) * dose
        _add(corner, weight * (1 - along) * (1 - across), inside, scale, FIXED_POINT)
        _add(corner + 1, weight * (1 - along) * across, inside, scale, FIXED_POINT)
        _add(corner + columns, weight * along * (1 - across), inside, scale, FIXED_POINT)
        _add(corner + columns + 1, weight * along * across, inside, scale, FIXED_POINT)


@triton.jit
@no_type_check
def row_kernel(row_start, column, value, vectors, products, batch, BATCH: tl.constexpr, ELEMENTS: tl.constexpr):
    """Product of one row of a sparse matrix with a few vectors."""
    row = tl.program_id(0)
    item = tl.program_id(1) * BATCH + tl.arange(0, BATCH)
    total = tl.zeros([ELEMENTS, BATCH], tl.float32)
    end = tl.load(row_start + row + 1)
    for start in range(tl.load(row_start + row), end, ELEMENTS):
        place = start + tl.arange(0, ELEMENTS)
        weight = tl.load(value + place, place < end, 0.0).to(tl.float32)
        source = tl.load(column + place, place < end, 0).to(tl.int64) * batch
        chosen = (place < end)[:, None] & (item < batch)[None]
        total += weight[:, None] * tl.load(vectors + source[:, None] + item[None], chosen, 0.0)
    tl.store(products + row.to(tl.int64) * batch + item, tl.sum(total, axis=0), item < batch)


def sample(sampling: Sampling, maps: Float[Tensor, "control_point kernel y_node x_node"]) -> Float[Tensor, " voxel"]:
    """Returns the dose at the voxels, Gy, from blurred maps; the order of summation is fixed."""
    points, kernels = maps.shape[:2]
    voxels = len(sampling.offset_mm)
    splits = min(SPLITS, points)
    doses = maps.new_empty(splits, voxels)
    with torch.cuda.device_of(maps):
        sample_kernel[(triton.cdiv(voxels, VOXELS), splits)](
            maps.contiguous(), *_tables(sampling), doses, points, voxels, triton.cdiv(points, splits),
            *_numbers(sampling), KERNELS=kernels, VOXELS=VOXELS, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return doses.sum(dim=0)


def spread(
    sampling: Sampling, dose: Float[Tensor, " voxel"], *, deterministic: bool
) -> Float[Tensor, "control_point kernel y_node x_node"]:
    """Applies the transpose of `sample`.

    Args:
        sampling: positions and weights.
        dose: weight of each voxel's dose.
        deterministic: sum 64-bit integers, so that every run gives the same bits; else sum floats in any order.
    """
    points, kernels, voxels = len(sampling.axes), len(sampling.depth_weights), len(dose)
    kind = torch.int64 if deterministic else torch.float32
    maps = torch.zeros(points, kernels, *sampling.map_shape, dtype=kind, device=dose.device)
    largest = dose.abs().amax() * sampling.depth_weights.abs().amax() * NEAREST**2
    scale = 2.0**FIXED_POINT_BITS / largest.clamp(min=torch.finfo(torch.float32).tiny * 2.0**FIXED_POINT_BITS)
    with torch.cuda.device_of(dose):
        spread_kernel[(triton.cdiv(voxels, VOXELS), points)](
            maps, scale, *_tables(sampling), dose.contiguous(), voxels,
            *_numbers(sampling), KERNELS=kernels, VOXELS=VOXELS, FIXED_POINT=deterministic,
            num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return (maps.double() / scale).float() if deterministic else maps


def row_products(matrix: SparseRows, vectors: Float[Tensor, "column batch"]) -> Float[Tensor, "row batch"]:
    """Returns the product of a sparse matrix with vectors, summed in single precision in a fixed order."""
    rows, batch = matrix.shape[0], vectors.shape[1]
    products = vectors.new_empty(rows, batch)
    together = min(16, triton.next_power_of_2(batch))
    with torch.cuda.device_of(vectors):
        row_kernel[(rows, triton.cdiv(batch, together))](
            matrix.row_start, matrix.column, matrix.value, vectors, products, batch,
            BATCH=together, ELEMENTS=max(16, ELEMENTS // together), enable_fp_fusion=False,
        )  # fmt: skip
    return products


def _tables(sampling: Sampling) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tables = (sampling.offset_mm, sampling.depth_mm, sampling.axes, sampling.depth_weights)
    if not all(table.is_contiguous() for table in tables):
        raise ValueError("sampling tables that are not contiguous: the kernels expect rows one after the other")
    return tables


def _numbers(sampling: Sampling) -> list[Any]:
    """Scalar arguments of the kernels: sizes, source-axis distance and nodes."""
    nodes = (
        number
        for axis in (sampling.x_nodes, sampling.y_nodes)
        for number in (axis.low_mm, axis.high_mm, float(axis.before), axis.step_mm)
    )
    rows, columns = sampling.map_shape
    depths = sampling.depth_weights.shape[1]
    return [depths, rows, columns, sampling.sad_mm, *nodes, OUTER_STEP_MM]
