"""Plans in a few kilobytes: what rounding costs, and bytes that are no plan."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
import torch

from lightning_vmat.cases.sizes import get_size
from lightning_vmat.data.packed import read_pack
from lightning_vmat.data.packed_plans import pack_leaf_tips, pack_monitor_units, unpack_plan
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.beam_setup import BeamSetup
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.machine import load_machine

MACHINE = load_machine("truebeam_millennium120")


ROWS = BeamletGrid(tuple(map(float, range(-60, 61, 5))), -60.0, 5.0, 24)


def beam_setup(*arcs: Arc) -> BeamSetup:
    return BeamSetup(ControlPoints.from_arcs(arcs), ROWS, MACHINE)


def hard_plans() -> Iterator[tuple[Plan, BeamSetup]]:
    """Random plans at the limits of leaf speed, gap and monitor units, over one arc and two."""
    torch.manual_seed(0)
    half = Arc(gantry_start_deg=181.0, gantry_stop_deg=7.0, control_points=23)
    for setup in (
        beam_setup(Arc(control_points=90)),
        beam_setup(half, Arc(control_points=31, direction="counterclockwise")),
    ):
        shape = (len(setup.control_points), 24)
        for _ in range(5):
            plan = Plan(torch.randn(shape) * 80, torch.randn(shape) * 80, torch.rand(shape[:1]) * 20)
            yield project_to_limits(plan, setup), setup


def test_rounding_is_small_and_keeps_the_limits() -> None:
    for plan, setup in hard_plans():
        rounded = unpack_plan(pack_leaf_tips(plan), pack_monitor_units(plan))
        for bank in ("left_mm", "right_mm"):
            assert float((getattr(rounded, bank) - getattr(plan, bank)).abs().max()) <= 0.0501
        kept = project_to_limits(rounded, setup)
        assert not any(machine_violations(kept, setup).values())
        for bank in ("left_mm", "right_mm"):
            assert float((getattr(kept, bank) - getattr(plan, bank)).abs().max()) <= 0.101
        assert float((kept.mu / plan.mu - 1).abs().max()) <= 0.001


def test_the_shipped_plans_take_four_kilobytes_each() -> None:
    pack = read_pack("prostate_wished")
    size = get_size("base")
    setup = beam_setup(Arc(control_points=size.control_points))
    packed = 0
    for source in pack.sources[::10]:
        plan = source.plan(setup)
        packed += len(pack_leaf_tips(plan)) + 2 * len(pack_monitor_units(plan))
    assert packed / len(pack.sources[::10]) < 4500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zlib", "cannot be decompressed"),
        (zlib.compress(bytes(10)), "10 bytes for 3 control points"),
        (zlib.compress(b""), "0 bytes for 3 control points"),
        (zlib.compress(bytes(24))[:-6], "control points, expected a plan"),
        (zlib.compress(bytes(2**24 + 12)), "control points, expected a plan"),
    ],
)
def test_bytes_that_are_no_plan_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_plan(torch.frombuffer(bytearray(content), dtype=torch.uint8), torch.ones(3).half())
    with pytest.raises(ValueError, match="expected finite ones"):
        unpack_plan(
            pack_leaf_tips(Plan(torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1))), torch.tensor([1e9]).half()
        )
