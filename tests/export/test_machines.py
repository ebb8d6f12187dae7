"""Every shipped machine, and a site's own: what is exported for it reads back, and what is another's is refused."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pydicom
import pytest
import torch
from planned_case import make_case, make_plan

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.cases.dicom.start import planned_case
from lightning_vmat.export.rtplan import write_rtplan
from lightning_vmat.plan.aperture import Plan
from lightning_vmat.plan.beamlets import BeamletGrid
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.limits import machine_violations, project_to_limits
from lightning_vmat.plan.machine import load_machine, machine_name, shipped_machines
from lightning_vmat.planning.body_dose import BodyDose

LINK = PatientLink("1.2.3.3", "1.2.3.1", "1.2.3.4", patient_name="Doe^Jane", patient_id="4711")
LEAVES = {  # leaf pairs, their widths at the axis and outside, field, all in mm
    "elekta_agility": (80, 5.0, 5.0, 400.0),
    "elekta_mlci2": (40, 10.0, 10.0, 400.0),
    "truebeam_hd120": (60, 2.5, 5.0, 220.0),
    "truebeam_millennium120": (60, 5.0, 10.0, 400.0),
}


def case_of(machine: str) -> Case:
    """A case with one row a leaf pair, over 120 mm of the leaves."""
    case, edges = make_case(voxel_mm=10.0, control_points=24), load_machine(machine).leaf_edges_mm
    rows = tuple(edge for edge in edges if -60 <= edge <= 60)
    return case.with_settings(machine_name=machine, beamlets=BeamletGrid(rows, -60.0, 5.0, 24))


def plan_of(case: Case) -> Plan:
    """A plan that went to the limits."""
    generator, smooth = torch.Generator().manual_seed(1), make_plan(case)
    shake = 30 * torch.randn((2, *smooth.left_mm.shape), generator=generator)
    return project_to_limits(Plan(smooth.left_mm + shake[0], smooth.right_mm + shake[1], smooth.mu), case.beam_setup)


def site_machine(folder: Path, **changes: str) -> Path:
    """A site's copy of a shipped machine."""
    text = (resources.files("lightning_vmat.plan") / "machines" / "truebeam_millennium120.yaml").read_text()
    for key, value in changes.items():
        [line] = [line for line in text.splitlines() if line.startswith(f"{key}:")]
        text = text.replace(line, f"{key}: {value}")
    (folder / "site.yaml").write_text(text)
    return folder / "site.yaml"


def test_shipped_machines_have_the_leaves_of_their_collimators() -> None:
    assert shipped_machines() == sorted(LEAVES)
    for name, (pairs, inner, outer, field_mm) in LEAVES.items():
        machine = load_machine(name)
        edges = torch.tensor(machine.leaf_edges_mm)
        assert machine.name == name and len(edges) == pairs + 1
        assert (float(edges.diff()[pairs // 2]), float(edges.diff()[0])) == (inner, outer)
        assert float(edges[-1] - edges[0]) == field_mm and float(edges[0]) == -float(edges[-1])
        assert machine_name(name) == name
    assert not load_machine("elekta_mlci2").interdigitation and not load_machine("elekta_agility").x_jaws
    with pytest.raises(ValueError, match=r"machine halcyon: expected one of elekta_agility, .*, or a YAML file"):
        load_machine("halcyon")


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_plan_of_each_machine_reads_back_and_is_its_own(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    plan, path = plan_of(case), tmp_path / "plan.dcm"
    assert not any(machine_violations(plan, case.beam_setup).values())
    write_rtplan(path, case, plan, LINK)
    data, back = pydicom.dcmread(path), read_rtplan(path)
    beam = data.BeamSequence[0]
    assert beam.TreatmentMachineName == name[:16]
    jaws = ["ASYMX", "ASYMY"] if case.machine.x_jaws else ["ASYMY"]
    assert [device.RTBeamLimitingDeviceType for device in beam.BeamLimitingDeviceSequence] == [*jaws, "MLCX"]
    again = back.on_rows(case.beamlets)
    torch.testing.assert_close(again.left_mm, plan.left_mm, atol=0.01, rtol=0)
    torch.testing.assert_close(again.right_mm, plan.right_mm, atol=0.01, rtol=0)
    leaves, setup = back.on_leaves(case.machine)
    assert leaves.left_mm.shape[1] == LEAVES[name][0]
    assert not any(machine_violations(leaves, setup).values())
    other, _ = planned_case(path, case, None)  # as `--compare` reads it: with the field of the file
    found, expected = other.beamlets.field_mm, case.beamlets.field_mm
    assert found[2:] == expected[2:] and (found == expected or not case.machine.x_jaws)


def test_the_reach_of_leaves_does_not_bound_y_jaws(tmp_path: Path) -> None:
    """Rows beyond it count as open in the planned dose."""
    short = site_machine(tmp_path, max_leaf_position_mm="40.0")
    case = case_of("truebeam_millennium120").with_settings(machine_name=machine_name(short))
    write_rtplan(tmp_path / "plan.dcm", case, plan_of(case), LINK)
    assert read_rtplan(tmp_path / "plan.dcm").jaws_mm == (-40.0, 40.0, -60.0, 60.0)


def test_a_field_without_x_jaws_is_that_of_its_openings(tmp_path: Path) -> None:
    case = case_of("elekta_agility")
    setup = case.beam_setup
    shape = plan_of(case).left_mm.shape
    plan = Plan(torch.full(shape, -23.0), torch.full(shape, 31.0), torch.full(shape[:1], 20.0))
    write_rtplan(tmp_path / "plan.dcm", case, project_to_limits(plan, setup), LINK)
    field = read_rtplan(tmp_path / "plan.dcm").beamlet_grid(case.machine, 5.0)
    assert (field.beamlet_start_mm, field.beamlet_stop_mm) == (-30.0, 40.0)


@pytest.mark.parametrize("name", sorted(set(LEAVES) - {"truebeam_millennium120"}))
def test_a_plan_of_another_machine_is_refused(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    write_rtplan(tmp_path / "plan.dcm", case, plan_of(case), LINK)
    with pytest.raises(
        ValueError,
        match="expected those of truebeam_millennium120; `vmat plan` and `vmat prepare` take another --machine",
    ):
        read_rtplan(tmp_path / "plan.dcm").check_machine(load_machine("truebeam_millennium120"))


def test_a_site_has_its_own_name_energy_and_filter(tmp_path: Path) -> None:
    own = site_machine(tmp_path, name="TB4", energy_mv="10", flattening_filter="false")
    case = case_of("truebeam_millennium120").with_settings(machine_name=machine_name(own))
    path = tmp_path / "plan.dcm"
    write_rtplan(path, case, plan_of(case), LINK)
    beam = pydicom.dcmread(path).BeamSequence[0]
    mode = beam.PrimaryFluenceModeSequence[0]
    assert (beam.TreatmentMachineName, float(beam.ControlPointSequence[0].NominalBeamEnergy)) == ("TB4", 10.0)
    assert (mode.FluenceMode, mode.FluenceModeID) == ("NON_STANDARD", "FFF")
    read_rtplan(path).check_machine(case.machine)
    with pytest.raises(ValueError, match="beam 1: 10 MV without flattening filter, expected 6 MV of truebeam_mill"):
        read_rtplan(path).check_machine(load_machine("truebeam_millennium120"))


def test_two_layers_of_leaves_are_refused(tmp_path: Path) -> None:
    case, path = case_of("truebeam_millennium120"), tmp_path / "plan.dcm"
    write_rtplan(path, case, plan_of(case), LINK)
    data = pydicom.dcmread(path)
    devices = data.BeamSequence[0].BeamLimitingDeviceSequence
    devices[2].RTBeamLimitingDeviceType = "MLCX1"
    devices.append(deepcopy(devices[2]))
    devices[3].RTBeamLimitingDeviceType = "MLCX2"
    data.save_as(path)
    with pytest.raises(ValueError, match=r"beam 1: two layers of leaves .*, expected one MLC"):
        read_rtplan(path)


def test_what_planning_systems_ask_for_at_import(tmp_path: Path) -> None:
    """Dose of the arcs at the reference point adds up to that of the plan there."""
    case = case_of("truebeam_millennium120")
    plan = plan_of(case)
    write_rtplan(tmp_path / "plan.dcm", case, plan, LINK)
    data = pydicom.dcmread(tmp_path / "plan.dcm")
    assert all(beam.ReferencedToleranceTableNumber == 1 for beam in data.BeamSequence)
    [table] = data.ToleranceTableSequence
    assert table.ToleranceTableNumber == 1 and float(table.GantryAngleTolerance) > 0
    assert [item.RTBeamLimitingDeviceType for item in table.BeamLimitingDeviceToleranceSequence][-1] == "MLCX"
    *sites, point = data.DoseReferenceSequence
    assert [float(item.TargetPrescriptionDose) for item in sites] == [60.0]
    assert point.DoseReferenceStructureType == "COORDINATES" and "TargetPrescriptionDose" not in point
    place = torch.tensor([float(value) for value in point.DoseReferencePointCoordinates])
    assert float((place - torch.tensor(case.isocentre_mm)).abs().max()) <= 5.0 + 1e-4
    beams = data.FractionGroupSequence[0].ReferencedBeamSequence
    total_gy = case.fractions * sum(float(beam.BeamDose) for beam in beams)
    dose_gy = BodyDose(case).of_fluence(plan.fluence_mu(case.beam_setup))
    points_mm = case.grid.centres_mm(case.body_index)
    expected_gy = float(dose_gy[(points_mm - place).norm(dim=1).argmin()])
    assert total_gy == pytest.approx(expected_gy, rel=2e-3)  # each operator has nodes of its own
    assert all(list(beam.BeamDoseSpecificationPoint) == list(point.DoseReferencePointCoordinates) for beam in beams)


def test_leaves_of_a_machine_that_may_not_touch_never_do() -> None:
    case = case_of("elekta_mlci2")
    plan = plan_of(case)
    closed = replace(plan, right_mm=plan.left_mm.clone())
    projected = project_to_limits(closed, case.beam_setup)
    assert float((projected.right_mm - projected.left_mm).min()) >= 5.0 - 1e-3
