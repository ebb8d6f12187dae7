"""Every attribute that changes a beam is modelled or refused, at whatever beam or control point it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from small_patient import arc, write_plan

from lightning_vmat.cases.dicom import beam_table
from lightning_vmat.cases.dicom.beam_table import BEAM, CONSTANT, CONTROL_POINT, UnsupportedPlan
from lightning_vmat.cases.dicom.rtplan import read_rtplan
from lightning_vmat.plan.machine import load_machine

TABLES = [
    beam_table.PLAN,
    beam_table.FRACTION_GROUP,
    beam_table.SETUP,
    beam_table.BEAM,
    beam_table.WEDGE_POSITION,
    beam_table.CONTROL_POINT,
    beam_table.CONSTANT,
]
ANGLES_DEG = range(181, 542, 40)
POINTS = len(ANGLES_DEG)


def two_arcs() -> list[Dataset]:
    return [arc(1, ANGLES_DEG), arc(2, list(ANGLES_DEG)[::-1], "CC")]


def wrong_value(keyword: str) -> Any:
    """A value that no rule allows."""
    return {
        "SQ": [Dataset()],
        "CS": "OTHER",
        "IS": 1,
        "DS": "2.5",
        "FL": 2.5,
    }[dictionary_VR(keyword)]


def refused(folder: Path, change: Callable[[list[Dataset]], object], named: str) -> str:
    """The one line that refuses the plan of two arcs after a change."""
    beams = two_arcs()
    change(beams)
    path = write_plan(folder, beams)
    with pytest.raises(UnsupportedPlan) as error:
        read_rtplan(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and named in text and "expected" in text and "\n" not in text
    return text


def test_every_entry_is_an_attribute_of_dicom() -> None:
    assert all(tag_for_keyword(keyword) is not None for table in TABLES for keyword in table)
    assert len(BEAM) + len(CONTROL_POINT) + len(CONSTANT) > 35


@pytest.mark.parametrize("keyword", BEAM)
def test_no_beam_may_be_of_another_kind(tmp_path: Path, keyword: str) -> None:
    for index in (0, 1):

        def change(beams: list[Dataset], index: int = index) -> None:
            setattr(beams[index], keyword, wrong_value(keyword))

        refused(tmp_path, change, f"beam {index + 1}: {keyword}")


@pytest.mark.parametrize("keyword", [*CONTROL_POINT, *CONSTANT])
def test_no_control_point_may_be_of_another_kind(tmp_path: Path, keyword: str) -> None:
    value = [0.0, 2.5, 0.0] if keyword == "IsocenterPosition" else wrong_value(keyword)
    for point in (1, POINTS - 1) if keyword in CONSTANT else (0, 1, POINTS - 1):

        def change(beams: list[Dataset], point: int = point) -> None:
            if keyword in CONSTANT and keyword not in beams[1].ControlPointSequence[0]:
                setattr(beams[1].ControlPointSequence[0], keyword, 0)
            setattr(beams[1].ControlPointSequence[point], keyword, value)

        refused(tmp_path, change, f"beam 2, control point {point}: {keyword}")


def setattr_of(keyword: str, value: object, item: Dataset) -> None:
    setattr(item, keyword, value)


def harmless() -> Iterator[tuple[str, Callable[[Dataset], object]]]:
    """Attributes that say nothing, or what is modelled anyway."""
    for keyword in (*BEAM, *CONTROL_POINT):
        yield keyword, partial(setattr_of, keyword, [] if dictionary_VR(keyword) == "SQ" else None)
    yield "pitch of a full turn", lambda item: setattr(item, "TableTopPitchAngle", 360.0)
    yield "energy", lambda item: setattr(item, "NominalBeamEnergy", "6.00")
    yield "no turning", lambda item: setattr(item, "PatientSupportRotationDirection", "NONE")


@pytest.mark.parametrize(("name", "change"), list(harmless()), ids=[name for name, _ in harmless()])
def test_what_says_nothing_changes_nothing(tmp_path: Path, name: str, change: Callable[[Dataset], object]) -> None:
    plain = read_rtplan(write_plan(tmp_path, two_arcs()))
    beams = two_arcs()
    for item in beams if name in BEAM else [point for beam in beams for point in beam.ControlPointSequence]:
        change(item)
    read = read_rtplan(write_plan(tmp_path, beams))
    assert read.arcs == plain.arcs
    assert all((a.mu == b.mu).all() for a, b in zip(read.motions, plain.motions, strict=True))


def wedge(beam: Dataset, *positions: str) -> None:
    """A wedge, and where it is at the first control points."""
    item = Dataset()
    item.WedgeNumber, item.WedgeType, item.WedgeAngle = 1, "STANDARD", 60
    beam.NumberOfWedges, beam.WedgeSequence = 1, [item]
    for point, position in zip(beam.ControlPointSequence, positions, strict=False):
        place = Dataset()
        place.ReferencedWedgeNumber, place.WedgePosition = 1, position
        point.WedgePositionSequence = [place]


def test_a_wedge_must_be_out_all_the_way(tmp_path: Path) -> None:
    refused(tmp_path, lambda beams: wedge(beams[0], "IN"), "beam 1, control point 0: WedgePosition IN")
    refused(tmp_path, lambda beams: wedge(beams[1], "OUT", "OUT", "IN"), "beam 2, control point 2: WedgePosition IN")
    refused(tmp_path, lambda beams: wedge(beams[1]), "beam 2: NumberOfWedges 1")
    beams = two_arcs()
    wedge(beams[0], "OUT")
    assert len(read_rtplan(write_plan(tmp_path, beams)).arcs) == 2


def in_mode(beam: Dataset, word: str) -> None:
    mode = Dataset()
    mode.FluenceMode, mode.FluenceModeID = word, "FFF"
    beam.PrimaryFluenceModeSequence = [mode]


def two_energies(beams: list[Dataset]) -> None:
    beams[1].ControlPointSequence[0].NominalBeamEnergy = 6
    beams[1].ControlPointSequence[3].NominalBeamEnergy = 10


def test_the_beam_quality_must_be_the_machines(tmp_path: Path) -> None:
    beams = two_arcs()
    in_mode(beams[1], "NON_STANDARD")
    plan = read_rtplan(write_plan(tmp_path, beams))
    with pytest.raises(UnsupportedPlan, match="beam 2: 6 MV without flattening filter, expected 6 MV"):
        plan.check_machine(replace(load_machine("truebeam_millennium120"), leaf_edges_mm=plan.motions[0].leaf_edges_mm))
    refused(tmp_path, lambda beams: in_mode(beams[0], "CURVED"), "beam 1: fluence modes")


def moved(beams: list[Dataset]) -> None:
    beams[1].ControlPointSequence[0].IsocenterPosition = [0, 0, 30]


def two_layers(beams: list[Dataset]) -> None:
    beams[0].BeamLimitingDeviceSequence[0].RTBeamLimitingDeviceType = "MLCX"


def standing(beams: list[Dataset]) -> None:
    """A step-and-shoot field that calls itself dynamic."""
    for point in beams[0].ControlPointSequence:
        point.GantryAngle, point.GantryRotationDirection = 30, "NONE"


def one_point(beams: list[Dataset]) -> None:
    beams[0].ControlPointSequence, beams[0].NumberOfControlPoints = beams[0].ControlPointSequence[:1], 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (two_energies, "beam 2: energies of [6.0, 10.0] MV"),
        (moved, "differ between beams"),
        (two_layers, "beam 1: collimators MLCX, ASYMY, MLCX"),
        (standing, "beam 1: gantry stands"),
        (one_point, "beam 1: 1 control points"),
    ],
)
def test_other_beams_are_refused(tmp_path: Path, change: Callable[[list[Dataset]], object], named: str) -> None:
    refused(tmp_path, change, named)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: setattr(data, "RTPlanGeometry", "TREATMENT_DEVICE"), "RTPlanGeometry TREATMENT_DEVICE"),
        (
            lambda data: setattr(data.FractionGroupSequence[0], "NumberOfBrachyApplicationSetups", 1),
            "BrachyApplication",
        ),
        (lambda data: setattr(data.PatientSetupSequence[0], "ShieldingDeviceSequence", [Dataset()]), "ShieldingDevice"),
        (lambda data: data.__setattr__("IonBeamSequence", data.BeamSequence), "an ion plan"),
        (lambda data: data.__delattr__("BeamSequence"), "no Beam Sequence"),
    ],
)
def test_other_plans_are_refused(tmp_path: Path, change: Callable[[Dataset], object], named: str) -> None:
    with pytest.raises(UnsupportedPlan, match=named):
        read_rtplan(write_plan(tmp_path, change=change))


def counted_wrong(keyword: str) -> Callable[[Dataset], object]:
    def change(data: Dataset) -> None:
        beam = data.BeamSequence[0]
        {
            "NumberOfControlPoints": lambda: setattr(beam, keyword, 12),
            "ControlPointIndex": lambda: setattr(beam.ControlPointSequence[4], keyword, 5),
            "NumberOfLeafJawPairs": lambda: setattr(beam.BeamLimitingDeviceSequence[2], keyword, 40),
            "NumberOfBeams": lambda: setattr(data.FractionGroupSequence[0], keyword, 2),
            "BeamNumber": lambda: setattr(beam, keyword, 7),
            "ReferencedPatientSetupNumber": lambda: setattr(beam, keyword, 4),
            "LeafJawPositions": lambda: setattr(
                beam.ControlPointSequence[2].BeamLimitingDevicePositionSequence[0], keyword, [5.0] * 60 + [-5.0] * 60
            ),
        }[keyword]()

    return change


@pytest.mark.parametrize(
    ("keyword", "named"),
    [
        ("NumberOfControlPoints", "13 control points, expected 12"),
        ("ControlPointIndex", "control point 5 at position 4"),
        ("NumberOfLeafJawPairs", "60 leaf pairs, expected 40"),
        ("NumberOfBeams", "1 beams, 1 different, in a fraction group of 2"),
        ("BeamNumber", r"fraction group of beams \[1\], but beams are \[7\]"),
        ("ReferencedPatientSetupNumber", "refers to patient setup 4"),
        ("LeafJawPositions", "control point 2 overlap"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(tmp_path: Path, keyword: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_rtplan(write_plan(tmp_path, change=counted_wrong(keyword)))
