"""RTPLAN, RTDOSE and RTSTRUCT: what the linac is told is the plan, and reading it back gives the same."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from planned_case import make_case, make_plan

from lightning_vmat.cases.dicom.dicom_references import PatientLink, lying_supine, read_link
from lightning_vmat.cases.dicom.patient import read_patient
from lightning_vmat.cases.dicom.roi_names import load_roi_names
from lightning_vmat.cases.dicom.rtdose import read_rtdose
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.phantom.phantom import make_phantom
from lightning_vmat.export.arc_delivery import ArcDelivery, arc_deliveries
from lightning_vmat.export.patient_folder import write_patient
from lightning_vmat.export.rtdose import Bits, write_rtdose
from lightning_vmat.export.rtplan import check_gantry_stop, write_rtplan
from lightning_vmat.export.surface_distance import surface_distance_mm
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.arc import Arc, ControlPoints
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import project_to_limits

LINK = PatientLink("1.2.3.3", "1.2.3.1", "1.2.3.4", patient_name="Doe^Jane", patient_id="4711")
LEAF_MM, MU = 0.01, 1e-4  # what reading back may differ by


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(voxel_mm=10.0, control_points=31)


@pytest.fixture(scope="module")
def plan(case: Case) -> Plan:
    """Leaves and monitor units that go to the limits."""
    generator = torch.Generator().manual_seed(1)
    smooth = make_plan(case)
    shake = 20 * torch.rand((2, *smooth.left_mm.shape), generator=generator)
    mu = smooth.mu * (0.2 + 1.5 * torch.rand(len(smooth.mu), generator=generator))
    return project_to_limits(Plan(smooth.left_mm - shake[0], smooth.right_mm + shake[1], mu), case.beam_setup)


@pytest.fixture(scope="module")
def deliveries(case: Case, plan: Plan) -> list[ArcDelivery]:
    return arc_deliveries(case, plan)


def test_every_sector_gets_its_monitor_units_at_its_aperture(
    case: Case, plan: Plan, deliveries: list[ArcDelivery]
) -> None:
    mu = torch.cat([delivery.cumulative_mu[::2].diff() for delivery in deliveries])
    torch.testing.assert_close(mu.float(), plan.mu, rtol=1e-6, atol=0)
    gantry = torch.cat([delivery.gantry_deg[1::2] for delivery in deliveries])
    torch.testing.assert_close(gantry.float(), case.control_points.gantry_deg, rtol=0, atol=1e-3)
    inside = slice(18, 42)  # leaf pairs from -60 to 60 mm
    for bank in ("left_mm", "right_mm"):
        middles = torch.cat([getattr(delivery, bank)[1::2, inside] for delivery in deliveries])
        assert torch.equal(middles.float(), getattr(plan, bank))


def test_leaves_keep_their_limits_between_the_points(case: Case, deliveries: list[ArcDelivery]) -> None:
    machine = case.machine
    for arc, delivery in zip(case.arcs, deliveries, strict=True):
        half_deg = abs(arc.span_deg) / arc.control_points / 2
        seconds = torch.maximum(
            delivery.cumulative_mu.diff() / machine.dose_rate_mu_per_s,
            torch.tensor(half_deg / machine.gantry_speed_deg_per_s),
        )
        for bank in (delivery.left_mm, delivery.right_mm):
            speed = bank.diff(dim=0).abs().amax(dim=1) / seconds
            assert float(speed.max()) <= machine.leaf_speed_mm_per_s + 1e-3
            assert float(np.ptp(bank.numpy(), axis=1).max()) <= machine.max_leaf_span_mm
        assert float((delivery.right_mm - delivery.left_mm).min()) >= machine.min_leaf_gap_mm - 1e-4


def test_mean_leaf_position_differs_by_an_eighth_of_the_second_difference(case: Case, plan: Plan) -> None:
    even = replace(plan, mu=case.control_points.sector_deg.clone())
    for delivery in arc_deliveries(case, even):
        path = delivery.left_mm
        mean = (path[:-2:2] + 2 * path[1:-1:2] + path[2::2]) / 4  # over the two halves of a sector
        middle = path[1::2]
        second = middle[2:] - 2 * middle[1:-1] + middle[:-2]
        torch.testing.assert_close(mean[1:-1] - middle[1:-1], second / 8, atol=1e-9, rtol=0)


def test_leaf_pairs_beside_the_field_stay_closed(deliveries: list[ArcDelivery]) -> None:
    for delivery in deliveries:
        assert delivery.left_mm.shape[1] == 60
        beside = [*range(18), *range(42, 60)]
        assert float((delivery.right_mm - delivery.left_mm)[:, beside].max()) <= 0.5 + 1e-4
        assert float(delivery.left_mm[:, beside].diff(dim=0).abs().max()) == 0


def test_a_plan_beyond_the_limits_is_refused(case: Case, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phantom_0007: plan breaks limits .*mu_per_deg"):
        write_rtplan(tmp_path / "plan.dcm", case, replace(plan, mu=100 * plan.mu), LINK)
    assert list(tmp_path.iterdir()) == []


def on_the_machine(case: Case, position: str) -> Case:
    """The case whose arcs have these gantry angles on the machine."""
    arcs = []
    for arc in case.arcs:
        start_deg, stop_deg = (
            lying_supine(position, deg, 0.0)[0] for deg in (arc.gantry_start_deg, arc.gantry_stop_deg)
        )
        arcs.append(replace(arc, gantry_start_deg=start_deg, gantry_stop_deg=stop_deg))
    return case.with_settings(arcs=tuple(arcs))


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_an_arc_across_the_stop_of_the_gantry_is_refused(case: Case, plan: Plan, tmp_path: Path, position: str) -> None:
    link, there, back = replace(LINK, patient_position=position), "clockwise", "counterclockwise"
    within = [(180, 180, there), (180, 180, back), (181, 179, there), (179, 181, back), (180.1, 179.9, there),
              (182, 176, there), (178, 180, there), (180, 20, there), (20, 180, back), (20, 32, there),
              (181, 181, there), (181, 179, back), (175, 185, back), (184, 184, there)]  # fmt: skip
    for arc in within:
        check_gantry_stop(on_the_machine(with_arc(case, *arc), position), link)
    for arc in [(170, 190, there), (186, 186, there), (0, 0, there), (120, 240, there), (174, 186, there)]:
        crossing, (start_deg, stop_deg, _) = on_the_machine(with_arc(case, *arc), position), arc
        with pytest.raises(ValueError, match=f"case phantom_0007: arc 1 turns from {start_deg:g} to {stop_deg:g} deg"):
            write_rtplan(tmp_path / "plan.dcm", crossing, plan, link)
    assert list(tmp_path.iterdir()) == []


def with_arc(case: Case, start_deg: float, stop_deg: float, direction: str) -> Case:
    return case.with_settings(arcs=(Arc(start_deg, stop_deg, 31, direction),))


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_rtplan_reads_back_as_the_same_plan(case: Case, plan: Plan, tmp_path: Path, position: str) -> None:
    path, case = tmp_path / "plan.dcm", on_the_machine(case, position)
    uid = write_rtplan(path, case, plan, replace(LINK, patient_position=position))
    back = read_rtplan(path)
    again = back.on_rows(case.beamlets)
    assert float((again.left_mm - plan.left_mm).abs().max()) < LEAF_MM
    assert float((again.right_mm - plan.right_mm).abs().max()) < LEAF_MM
    assert float((again.mu - plan.mu).abs().max()) < MU
    found, expected = (ControlPoints.from_arcs(arcs) for arcs in (back.arcs, case.arcs))
    torch.testing.assert_close(found.beam_axes(), expected.beam_axes(), atol=1e-5, rtol=0)
    assert back.beamlet_grid(case.machine, 5.0) == case.beamlets
    assert (back.uid, back.structure_set_uid) == (uid, LINK.structure_set_uid)
    assert (back.isocentre_mm, back.fractions, back.prescription_gy) == (case.isocentre_mm, 20, (60.0,))


def test_jaws_of_a_case_are_those_of_its_rtplan(case: Case, plan: Plan, tmp_path: Path) -> None:
    jawed = case.with_settings(beamlets=replace(case.beamlets, jaws_mm=(-45.0, 50.0, -40.0, 35.0)))
    write_rtplan(tmp_path / "plan.dcm", jawed, plan, LINK)
    field = read_rtplan(tmp_path / "plan.dcm").beamlet_grid(case.machine, 5.0)
    assert (field.beamlet_start_mm, field.beamlet_stop_mm) == (-45.0, 50.0)
    assert (field.leaf_edges_mm[0], field.leaf_edges_mm[-1]) == (-40.0, 35.0)


def test_ganged_rows_move_all_their_leaf_pairs(tmp_path: Path) -> None:
    case = make_phantom(0, "tiny")
    left = torch.full((12, 8), -20.0) + torch.arange(8)
    plan = Plan(left, left + 30, torch.full((12,), 40.0))
    write_rtplan(tmp_path / "plan.dcm", case, plan, LINK)
    back = read_rtplan(tmp_path / "plan.dcm")
    single = back.on_rows(back.beamlet_grid(case.machine, 15.0))
    assert single.left_mm.shape == (12, 24)
    torch.testing.assert_close(single.left_mm, left.repeat_interleave(3, dim=1), atol=LEAF_MM, rtol=0)
    torch.testing.assert_close(back.on_rows(case.beamlets).left_mm, left, atol=LEAF_MM, rtol=0)


def test_the_plan_says_that_it_is_for_research(case: Case, plan: Plan, tmp_path: Path) -> None:
    write_rtplan(tmp_path / "plan.dcm", case, plan, LINK)
    data = pydicom.dcmread(tmp_path / "plan.dcm")
    assert data.ApprovalStatus == "UNAPPROVED" and data.PlanIntent == "RESEARCH"
    assert "RESEARCH" in data.RTPlanLabel and "research use only" in data.RTPlanDescription
    assert (data.PatientID, data.StudyInstanceUID, data.FrameOfReferenceUID) == ("4711", "1.2.3.3", "1.2.3.1")
    first = data.BeamSequence[0].ControlPointSequence[0]
    assert float(first.DoseRateSet) == 600 and first.CumulativeMetersetWeight == 0
    assert [beam.ControlPointSequence[0].GantryRotationDirection for beam in data.BeamSequence] == ["CW", "CC"]
    assert all(beam.ControlPointSequence[-1].CumulativeMetersetWeight == 1 for beam in data.BeamSequence)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
@pytest.mark.parametrize(("gantry_deg", "couch_deg"), [(0.0, 0.0), (75.0, 0.0), (200.0, 30.0)])
def test_beams_reach_a_patient_from_where_the_machine_stands(
    position: str, gantry_deg: float, couch_deg: float
) -> None:
    def axes(gantry: float, couch: float) -> torch.Tensor:
        arc = Arc(gantry - 1, gantry + 1, 1, "clockwise", 20.0, couch)
        return ControlPoints.from_arcs((arc,)).beam_axes()[0]

    supine = axes(gantry_deg, couch_deg)  # in LPS of a head-first supine patient, so also a frame of the table
    sign = {"HFS": (1, 1, 1), "HFP": (-1, -1, 1), "FFS": (-1, 1, -1), "FFP": (1, -1, -1)}[position]
    turned = axes(*lying_supine(position, gantry_deg, couch_deg))
    torch.testing.assert_close(turned, supine * torch.tensor(sign), atol=1e-5, rtol=0)
    assert lying_supine(position, *lying_supine(position, gantry_deg, couch_deg)) == (gantry_deg, couch_deg)


def test_surface_distance_is_that_of_the_body() -> None:
    case = make_case(voxel_mm=5.0)  # an ellipse of 185 x 125 mm in the isocentre's slice
    distance = surface_distance_mm(case, case.arcs[0], torch.tensor([0.0, 90.0, 180.0, 270.0]))
    torch.testing.assert_close(distance, torch.tensor([875.0, 815.0, 875.0, 815.0]), atol=5.0, rtol=0)
    moved = case.with_settings(isocentre_mm=(500.0, 0.0, 0.0))
    assert surface_distance_mm(moved, case.arcs[0], torch.tensor([0.0])).tolist() == [1000.0]


def test_other_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="'HFDR': expected one of HFS"):
        PatientLink("1", "2", "3", patient_position="HFDR")


@pytest.mark.parametrize("bits", [16, 32])
def test_rtdose_reads_back(case: Case, tmp_path: Path, bits: Bits) -> None:
    dose_gy = 66.0 * torch.rand(case.grid.shape, generator=torch.Generator().manual_seed(0))
    write_rtdose(tmp_path / "dose.dcm", dose_gy, case.grid, LINK, "1.2.3.5", bits)
    back = read_rtdose(tmp_path / "dose.dcm", case.grid)
    assert float((back - dose_gy).abs().max()) <= 66.0 / (2**bits - 1) / 2 + 2e-5


def test_rtdose_is_interpolated_and_zero_outside(case: Case, tmp_path: Path) -> None:
    x = case.grid.centres_mm(torch.arange(case.grid.voxel_count))[:, 0].reshape(case.grid.shape)
    write_rtdose(tmp_path / "dose.dcm", (x + 250) / 10, case.grid, LINK, "1.2.3.5", 32)
    sx, sy, sz = case.grid.spacing_mm
    ox, oy, oz = case.grid.origin_mm
    shifted = replace(case.grid, origin_mm=(ox + 0.3 * sx, oy + 0.4 * sy, oz - 3 * sz))
    back = read_rtdose(tmp_path / "dose.dcm", shifted)
    torch.testing.assert_close(back[4:, :-1, :-1], ((x + 250) / 10 + 0.03 * sx)[4:, :-1, :-1], atol=1e-3, rtol=0)
    assert float(back[:2].abs().max()) == 0


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_a_dose_that_is_none_is_refused(case: Case, tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="negative dose"):
        write_rtdose(tmp_path / "dose.dcm", torch.full(case.grid.shape, value), case.grid, LINK, "1.2.3.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom with a hole in an organ, its plan and a dose."""
    case = make_phantom(1, "demo")
    case.structures["Bladder"] &= ~case.structures["PTV"]
    case.structures["Bladder"][:, :, 40:42] = False
    mu = 3 * case.control_points.sector_deg
    left = -20 - 5 * torch.rand(36, 12, generator=torch.Generator().manual_seed(0))
    plan = project_to_limits(Plan(left, -left, mu), case.beam_setup)
    folder = tmp_path_factory.mktemp("patients") / "phantom"
    write_patient(folder, case, plan, 60.0 * case.structures["PTV"].float())
    return folder


def test_a_phantom_comes_back_voxel_by_voxel(folder: Path) -> None:
    case = make_phantom(1, "demo")
    patient = read_patient(folder, case.protocol, load_roi_names(), size="demo", use_plan=False)
    back = patient.case
    x, y, z = (round((new - old) / 5) for new, old in zip(back.grid.origin_mm, case.grid.origin_mm, strict=True))
    box = tuple(slice(start, start + count) for start, count in zip((z, y, x), back.grid.shape, strict=True))
    assert set(back.structures) == set(case.structures)
    for name in set(case.structures) - {"Bladder"}:
        assert int(case.structures[name].sum()) == int(back.structures[name].sum())
        assert torch.equal(back.structures[name], case.structures[name][box])
    body = back.structures["Body"]
    assert torch.equal(back.hu[body], case.hu[box][body].clamp(min=-1000))
    assert (back.hu[~body] == -1000).all()
    assert (back.arcs, back.beamlets, back.isocentre_mm) == (case.arcs, case.beamlets, case.isocentre_mm)
    assert patient.dose_gy is not None
    torch.testing.assert_close(patient.dose_gy, 60.0 * back.structures["PTV"].float(), atol=1e-3, rtol=0)


def test_uids_are_new_and_everything_is_linked(folder: Path, case: Case, plan: Plan, tmp_path: Path) -> None:
    structures, rtplan, dose = (pydicom.dcmread(folder / f"{name}.dcm") for name in ("RTSTRUCT", "RTPLAN", "RTDOSE"))
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("CT_*.dcm"))]
    everything = [structures, rtplan, dose, *slices]
    assert len({data.SOPInstanceUID for data in everything}) == len(everything)
    assert len({data.SeriesInstanceUID for data in everything}) == 4
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate"):
        assert len({str(data[keyword].value) for data in everything}) == 1
    assert rtplan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == rtplan.SOPInstanceUID
    study = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    named = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert {item.ReferencedSOPInstanceUID for item in named} == {data.SOPInstanceUID for data in slices}
    assert rtplan.ApprovalStatus == structures.ApprovalStatus == "UNAPPROVED"
    again = {str(write_rtplan(tmp_path / "plan.dcm", case, plan, LINK)) for _ in range(3)}
    assert len(again) == 3


@pytest.mark.parametrize("name", ["RTPLAN", "RTSTRUCT", "RTDOSE", "CT_0001"])
def test_dciodvfy_finds_no_error(folder: Path, name: str) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    result = subprocess.run([program, folder / f"{name}.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in result.stderr + result.stdout


def test_a_folder_without_links_has_none(tmp_path: Path) -> None:
    assert read_link(tmp_path) is None
    (tmp_path / "dicom.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"dicom\.yaml: expected keys and values"):
        read_link(tmp_path)
