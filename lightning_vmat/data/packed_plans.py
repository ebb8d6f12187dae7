"""Plans in a few kilobytes each: leaf tips to 0.1 mm, monitor units to 0.1 %.

Leaf tips are whole tenths of millimetres. For each leaf its steps from control point to control point are stored,
low bytes before high bytes, which zlib compresses to less than half. Monitor units are IEEE half precision,
whose rounding is at most 2^-11 (0.05 %) of the value.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from lightning_vmat.plan.aperture import Plan

TENTHS = 10  # of a millimetre
MAX_BYTES = 1 << 24  # limit for the unpacked leaf tips of a plan, 100 times those of a large plan


def pack_leaf_tips(plan: Plan) -> UInt8[Tensor, " byte"]:
    """Leaf tips of both banks, rounded to 0.1 mm and compressed."""
    tips_mm = torch.stack((plan.left_mm, plan.right_mm)).double().numpy()  # [bank, control point, leaf pair]
    tenths = np.floor(tips_mm * TENTHS + 0.5).astype("<i2").transpose(0, 2, 1)
    steps = np.diff(tenths, axis=-1, prepend=np.zeros_like(tenths[..., :1]))
    low_then_high = np.ascontiguousarray(steps).view(np.uint8).reshape(-1, 2).T.tobytes()
    return torch.frombuffer(bytearray(zlib.compress(low_then_high, 9)), dtype=torch.uint8)


def pack_monitor_units(plan: Plan) -> Float16[Tensor, " control_point"]:
    """Monitor units in half precision."""
    return plan.mu.half().contiguous()


def unpack_plan(leaf_tips: UInt8[Tensor, " byte"], mu: Float16[Tensor, " control_point"]) -> Plan:
    """Unpack the rounded plan. Rounding can break a limit of the machine by less than 0.1 mm, see `project_to_limits`.

    Raises:
        ValueError: bytes that do not fit the number of control points, or monitor units that are not finite.
    """
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(leaf_tips.numpy().tobytes(), MAX_BYTES)
    except zlib.error as error:
        raise ValueError(f"leaf tips cannot be decompressed ({error})") from error
    bytes_of_a_row = 2 * 2 * len(mu)  # two banks, two bytes
    if not unpacker.eof or not len(mu) or not content or len(content) % bytes_of_a_row or mu.ndim != 1:
        raise ValueError(f"leaf tips of {len(content)} bytes for {len(mu)} control points, expected a plan")
    if not bool(mu.isfinite().all()):
        raise ValueError("monitor units with NaN or infinite values, expected finite ones")
    pairs = np.frombuffer(content, np.uint8).reshape(2, -1).T
    steps = np.ascontiguousarray(pairs).view("<i2").reshape(2, -1, len(mu))
    left, right = torch.from_numpy(steps.cumsum(axis=-1).transpose(0, 2, 1) / TENTHS).float()
    return Plan(left.contiguous(), right.contiguous(), mu.float())
