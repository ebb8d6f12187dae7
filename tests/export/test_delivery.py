"""What a written RTPLAN delivers in motion, how long it takes, and how it compares with the plan's dose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_vmat.cases.dicom.beam_arc import BeamArc
from lightning_vmat.cases.dicom.rtdose import read_rtdose
from lightning_vmat.cases.dicom.rtplan import RtPlan, read_rtplan
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.export.delivered_dose import delivered_dose
from lightning_vmat.export.delivered_fluence import cut_into_pieces, delivered_fluence
from lightning_vmat.export.delivery_check import check_rtplan
from lightning_vmat.export.delivery_timing import arc_timing
from lightning_vmat.export.patient_folder import phantom_link, write_plan_and_dose
from lightning_vmat.export.rtplan import write_rtplan
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.delivery_time import delivery_seconds
from lightning_vmat.plan.limits import project_to_limits
from lightning_vmat.plan.shapes import FluenceMap
from lightning_vmat.planning.body_dose import BodyDose

SUB_STEPS = 400


@pytest.fixture(scope="module")
def case() -> Case:
    """Two short arcs in sectors of 3 degrees, the second back again and with another collimator angle; jaws."""
    whole = make_phantom(0, "tiny")
    arcs = (Arc(20.0, 32.0, 4, "clockwise", 15.0), Arc(32.0, 20.0, 4, "counterclockwise", 350.0))
    x1, x2, y1, _ = whole.beamlets.field_mm
    jaws = (x1 + whole.beamlets.beamlet_width_mm, x2, y1, whole.beamlets.leaf_edges_mm[-2])
    return whole.with_settings(arcs=arcs, beamlets=replace(whole.beamlets, jaws_mm=jaws))


def moving(case: Case, reach_mm: float) -> Plan:
    """Leaves that open and close in turn by up to `reach_mm` a sector, within limits; more MU when open."""
    generator = torch.Generator().manual_seed(2)
    count, (rows, _) = len(case.control_points), case.beamlets.shape
    turn = (torch.arange(count) % 2)[:, None]
    left, right = (5 + reach_mm * turn + 5 * torch.rand((count, rows), generator=generator) for _ in range(2))
    mu = case.control_points.sector_deg * (0.5 + 2 * turn[:, 0])
    return project_to_limits(Plan(-left, right, mu), case.beam_setup)


def written(case: Case, plan: Plan, folder: Path) -> RtPlan:
    write_rtplan(folder / "RTPLAN.dcm", case, plan, phantom_link(case))
    return read_rtplan(folder / "RTPLAN.dcm")


def still_apertures(
    case: Case, left_mm: Tensor, right_mm: Tensor, mu: Float[Tensor, " aperture"]
) -> Float[Tensor, "aperture leaf_pair beamlet"]:
    """Fluence of leaves that stand still, beamlet by beamlet."""
    gap, passes = case.machine.dosimetric_leaf_gap_mm / 2, case.machine.leaf_transmission
    edges = case.beamlets.beamlet_edges_mm
    low = torch.maximum(left_mm[..., None] - gap, edges[:-1])
    high = torch.minimum(right_mm[..., None] + gap, edges[1:])
    open_fraction = (high - low).clamp(min=0) / case.beamlets.beamlet_width_mm
    return mu[:, None, None] * (passes + (1 - passes) * open_fraction)


def averaged(case: Case, rtplan: RtPlan) -> FluenceMap:
    """Fluence of each sector as the mean over many still apertures on the leaves' way, from the file's own points."""
    maps = []
    first = [case.machine.leaf_edges_mm.index(edge) for edge in case.beamlets.leaf_edges_mm[:-1]]  # pair of each row
    for arc in rtplan.beam_arcs:
        left, right, given = (torch.from_numpy(v).float() for v in (arc.left_mm, arc.right_mm, arc.given_mu))
        fine = (torch.arange(SUB_STEPS) + 0.5) / SUB_STEPS
        for sector in range(len(given) // 2):
            total = torch.zeros(case.beamlets.shape)
            for a in (2 * sector, 2 * sector + 1):
                tips = [torch.lerp(bank[a, first], bank[a + 1, first], fine[:, None]) for bank in (left, right)]
                mu = (given[a + 1] - given[a]).expand(SUB_STEPS) / SUB_STEPS
                total += still_apertures(case, tips[0], tips[1], mu).sum(dim=0)
            maps.append(total)
    return torch.stack(maps)


def sector_fluence(case: Case, rtplan: RtPlan) -> FluenceMap:
    """What the check finds when its sub-sectors are the plan's sectors."""
    maps = []
    for arc, beam_arc in zip(rtplan.arcs, rtplan.beam_arcs, strict=True):
        pieces = cut_into_pieces(beam_arc, abs(arc.span_deg) / arc.control_points)
        assert pieces.sub_sectors == arc.control_points
        maps.append(delivered_fluence(beam_arc, pieces, range(pieces.sub_sectors), case.beamlets, case.machine))
    return torch.cat(maps)


def volume(case: Case, dose_gy: Float[Tensor, " voxel"]) -> Float[Tensor, "z y x"]:
    whole = torch.zeros(case.grid.voxel_count)
    whole[case.body_index] = dose_gy
    return whole.reshape(case.grid.shape)


def still_fluence(case: Case, plan: Plan) -> FluenceMap:
    return still_apertures(case, plan.left_mm, plan.right_mm, plan.mu)


def inside(case: Case, fluence_mu: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return fluence_mu * case.beamlets.inside_jaws


def test_still_leaves_deliver_their_aperture(case: Case, tmp_path: Path) -> None:
    plan = moving(case, 15.0)
    still = replace(plan, left_mm=plan.left_mm[:1].expand(8, -1), right_mm=plan.right_mm[:1].expand(8, -1))
    found = sector_fluence(case, written(case, still, tmp_path))
    torch.testing.assert_close(found, inside(case, still_fluence(case, still)), atol=1e-4, rtol=1e-4)


def test_moving_leaves_deliver_the_mean_over_their_way(case: Case, tmp_path: Path) -> None:
    plan = moving(case, 15.0)
    rtplan = written(case, plan, tmp_path)
    found, scale = sector_fluence(case, rtplan), float(plan.mu.mean())
    assert float((found - inside(case, averaged(case, rtplan))).abs().max()) < 0.005 * scale
    assert float((found - inside(case, still_fluence(case, plan))).abs().max()) > 0.05 * scale


def test_monitor_units_stay_whatever_the_cut(case: Case, tmp_path: Path) -> None:
    plan = moving(case, 15.0)
    for arc in written(case, plan, tmp_path).beam_arcs:
        for step_deg in (0.5, 0.7, 3.0, 5.0):
            pieces = cut_into_pieces(arc, step_deg)
            assert pieces.mu.sum() == pytest.approx(arc.given_mu[-1], rel=1e-9)
            assert pieces.sub_sectors == math.ceil(12 / step_deg)
            per_sub_sector = np.bincount(pieces.sub_sector, pieces.mu, pieces.sub_sectors)
            ends = np.linspace(0, 12, pieces.sub_sectors + 1)
            expected = np.diff(np.interp(ends, arc.travelled_deg, arc.given_mu))
            np.testing.assert_allclose(per_sub_sector, expected, atol=1e-4)


def test_a_piece_is_short_for_gantry_and_leaves(case: Case, tmp_path: Path) -> None:
    (arc, _) = written(case, moving(case, 15.0), tmp_path).beam_arcs
    pieces = cut_into_pieces(arc, 0.5, 1.0)
    share = pieces.mu / np.diff(arc.given_mu)[pieces.interval]
    for bank in (arc.left_mm, arc.right_mm):
        assert (share[:, None] * np.abs(np.diff(bank, axis=0))[pieces.interval]).max() <= 1.0 + 1e-6
    assert (share * np.diff(arc.travelled_deg)[pieces.interval]).max() <= 0.5 + 1e-6


def test_monitor_units_of_a_standing_gantry_count_where_it_stands() -> None:
    arc = made_arc(travelled_deg=[0.0, 2.0, 2.0], given_mu=[0.0, 1.0, 5.0])
    pieces = cut_into_pieces(arc, 1.0)
    np.testing.assert_allclose(np.bincount(pieces.sub_sector, pieces.mu), [0.5, 4.5])


def made_arc(
    travelled_deg: list[float],
    given_mu: list[float],
    left_mm: list[list[float]] | None = None,
    jaws_mm: tuple[float, float, float, float] = (-100.0, 100.0, -10.0, 10.0),
) -> BeamArc:
    """An arc of two leaf pairs of 10 mm."""
    count = len(travelled_deg)
    left = np.array(left_mm) if left_mm else np.full((count, 2), -10.0)
    jaws = np.tile(np.array(jaws_mm).reshape(2, 2), (count, 1, 1))
    return BeamArc(
        gantry_start_deg=0.0,
        gantry_stop_deg=travelled_deg[-1],
        direction="clockwise",
        collimator_deg=0.0,
        couch_deg=0.0,
        leaf_edges_mm=(-10.0, 0.0, 10.0),
        travelled_deg=np.array(travelled_deg),
        given_mu=np.array(given_mu),
        left_mm=left,
        right_mm=np.full((count, 2), 10.0),
        jaws_mm=jaws,
    )


def test_fluence_by_hand(case: Case) -> None:
    machine = replace(case.machine, leaf_transmission=0.1, dosimetric_leaf_gap_mm=2.0)
    arc = made_arc([0.0, 1.0], [0.0, 10.0], [[-9.0, -19.0], [-9.0, 1.0]], jaws_mm=(-20.0, 5.0, -10.0, 5.0))
    ganged = BeamletGrid((-10.0, 10.0), -20.0, 10.0, 4)
    pieces = cut_into_pieces(arc, 1.0, 0.01)
    (row,) = delivered_fluence(arc, pieces, range(1), ganged, machine)[0]
    # beamlet -20 to -10: pair 1 under its leaf; pair 2, half of whose width the jaw covers, opens from -20 to 0
    # on the way, so its left tip lies behind this beamlet half the time, and in its middle on average otherwise
    open_1, open_2 = [0.0, 1.0, 0.5, 0.0], [0.25, 0.75, 0.5, 0.0]
    seen = [1.0, 1.0, 0.5, 0.0]
    expected = [
        10 * (0.5 * (0.1 * s + 0.9 * a) + 0.25 * (0.1 * s + 0.9 * b))
        for s, a, b in zip(seen, open_1, open_2, strict=True)
    ]
    torch.testing.assert_close(row, torch.tensor(expected), atol=0.01, rtol=0)


@pytest.fixture(scope="module")
def strongly(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, RtPlan, Path]:
    plan, folder = moving(case, 15.0), tmp_path_factory.mktemp("strongly")
    return plan, written(case, plan, folder), folder / "RTPLAN.dcm"


def test_dose_converges_with_the_steps(case: Case, strongly: tuple[Plan, RtPlan, Path]) -> None:
    _, rtplan, _ = strongly
    finest = delivered_dose(case, rtplan, step_deg=0.25, leaf_step_mm=0.1)
    errors = [
        float((delivered_dose(case, rtplan, step_deg=step, leaf_step_mm=leaf) - finest).abs().max() / finest.max())
        for step, leaf in ((3.0, 10.0), (1.0, 2.0), (0.5, 1.0))
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 5e-4


def test_sub_sectors_in_parts_give_the_same_dose(
    case: Case, strongly: tuple[Plan, RtPlan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rtplan, _ = strongly
    whole = delivered_dose(case, rtplan)
    monkeypatch.setattr("lightning_vmat.export.delivered_dose.PAIRS", 5 * len(case.body_index))
    parts = delivered_dose(case, rtplan)
    assert float((parts - whole).abs().max()) < 1e-3 * float(whole.max())


def test_a_plan_of_averaged_fluence_passes_and_one_of_still_apertures_fails(
    case: Case, strongly: tuple[Plan, RtPlan, Path]
) -> None:
    plan, rtplan, path = strongly
    body = BodyDose(case)
    good = check_rtplan(path, case, None, volume(case, body.of_fluence(averaged(case, rtplan))), "averaged")
    assert good.failed == [] and good.planned_dose == "averaged"
    bad = check_rtplan(path, case, None, volume(case, body.of_fluence(still_fluence(case, plan))), "still")
    for figure in ("gamma 1 %/1 mm", "PTV D98", "PTV D95"):
        assert any(text.startswith(figure) for text in bad.failed)
    assert abs(bad.objective_change) > 5 * abs(good.objective_change)
    assert bad.mu == pytest.approx(float(plan.mu.sum()), abs=1e-3)


def test_two_gantry_angles_a_sector_are_four_times_as_near_as_one(
    case: Case, strongly: tuple[Plan, RtPlan, Path]
) -> None:
    """The middle of a piece is right to second order of its length; leaves that move less leave gantry motion alone."""
    plan, rtplan, _ = strongly
    body, delivered_gy = BodyDose(case), delivered_dose(case, rtplan, step_deg=0.1)
    halves = plan.half_sector_fluence_mu(case.beam_setup)
    torch.testing.assert_close(halves.unflatten(0, (-1, 2)).sum(dim=1), plan.fluence_mu(case.beam_setup))
    one, two = (
        float((dose_gy - delivered_gy).norm())
        for dose_gy in (body.of_fluence(plan.fluence_mu(case.beam_setup)), body.of_plan(plan))
    )
    assert two < one / 3


def test_rtdose_of_a_plan_is_its_dose_and_that_of_its_rtplan(
    case: Case, strongly: tuple[Plan, RtPlan, Path], tmp_path: Path
) -> None:
    plan, _, _ = strongly
    dose_gy = volume(case, BodyDose(case).of_plan(plan))
    write_plan_and_dose(tmp_path, case, plan, dose_gy, phantom_link(case))
    back = read_rtdose(tmp_path / "RTDOSE.dcm", case.grid)
    rounding_gy = float(dose_gy.max()) / (2**16 - 1) / 2
    assert float((back - dose_gy).abs().max()) < rounding_gy + 2e-5
    delivered = volume(case, delivered_dose(case, read_rtplan(tmp_path / "RTPLAN.dcm")))
    target = case.structures["PTV"]
    assert float((back - delivered)[target].abs().max()) < 0.01 * float(delivered[target].max())
    assert float((back - delivered).abs().mean()) < 0.001 * float(dose_gy.max())


def test_other_fractions_are_refused(case: Case, strongly: tuple[Plan, RtPlan, Path], tmp_path: Path) -> None:
    data = pydicom.dcmread(strongly[2])
    data.FractionGroupSequence[0].NumberOfFractionsPlanned = 7
    data.save_as(tmp_path / "RTPLAN.dcm")
    with pytest.raises(ValueError, match=r"RTPLAN.dcm: 7 fractions, expected 20 as case phantom_0000 has"):
        check_rtplan(tmp_path / "RTPLAN.dcm", case, None, torch.zeros(case.grid.shape), "")


def test_stored_influence_is_refused(case: Case, strongly: tuple[Plan, RtPlan, Path]) -> None:
    stored = case.with_settings(influence_path=Path("influence.safetensors"))
    with pytest.raises(ValueError, match="phantom_0000: stored dose influence"):
        delivered_dose(stored, strongly[1])


def test_delivery_time_by_hand(case: Case) -> None:
    """6 deg/s, 10 MU/s, 22.5 mm/s: 2 s by the gantry, then 3 s by the dose rate, then 4 s by a leaf."""
    left = [[-10.0, -10.0], [-10.0, -10.0], [-10.0, -10.0], [-100.0, -10.0]]
    timing = arc_timing(made_arc([0.0, 12.0, 18.0, 24.0], [0.0, 10.0, 40.0, 50.0], left), case.machine)
    assert timing.held_by_s == pytest.approx({"gantry": 2.0, "dose_rate": 3.0, "leaves": 4.0})
    assert timing.seconds == pytest.approx(9.0) and timing.mu == 50.0
    assert timing.max_leaf_mm_per_s == pytest.approx(22.5) and timing.max_dose_rate_mu_per_s == pytest.approx(10.0)
    behind_x = arc_timing(
        made_arc([0.0, 12.0, 18.0, 24.0], [0.0, 10.0, 40.0, 50.0], left, (-10.0, 50.0, -10.0, 10.0)), case.machine
    )
    behind_y = arc_timing(
        made_arc([0.0, 12.0, 18.0, 24.0], [0.0, 10.0, 40.0, 50.0], left, (-200.0, 50.0, 0.0, 10.0)), case.machine
    )
    assert behind_x.seconds == behind_y.seconds == pytest.approx(6.0)


def test_delivery_time_of_two_sectors_by_hand(case: Case) -> None:
    """Sectors of 6 degrees with 6 and 30 MU take 1 s and 3 s; a leaf goes 90 mm from one middle to the other in 2 s,
    twice as fast as it can, so both half sectors between take twice their time."""
    two = case.with_settings(arcs=(Arc(0.0, 12.0, 2),))
    left = torch.full((2, 8), -50.0)
    left[1, 3] = 40.0
    plan = Plan(left, torch.full((2, 8), 50.0), torch.tensor([6.0, 30.0]))
    wide = replace(two.beamlets, jaws_mm=None)
    found = delivery_seconds(plan, replace(two.beam_setup, beamlets=wide))
    torch.testing.assert_close(found, torch.tensor([0.5 + 1.0, 3.0 + 1.5]))
    hidden = replace(two.beamlets, jaws_mm=(-60.0, 60.0, wide.leaf_edges_mm[4], wide.leaf_edges_mm[-1]))
    found = delivery_seconds(plan, replace(two.beam_setup, beamlets=hidden))
    torch.testing.assert_close(found, torch.tensor([1.0, 3.0]))


def test_delivery_time_of_a_plan_is_that_of_its_rtplan(case: Case, strongly: tuple[Plan, RtPlan, Path]) -> None:
    plan, rtplan, _ = strongly
    seconds = delivery_seconds(plan, case.beam_setup)
    for number, arc in enumerate(rtplan.beam_arcs):
        own = float(seconds[case.control_points.arc_index == number].sum())
        assert arc_timing(arc, case.machine).seconds == pytest.approx(own, rel=1e-4)
