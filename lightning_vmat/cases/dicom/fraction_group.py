"""The treatment beams of an RTPLAN, their monitor units, and the patient position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.beam_table import FRACTION_GROUP, SETUP, UnsupportedPlan, check_attributes
from lightning_vmat.cases.dicom.files import shown_word

NO_TREATMENT = ("SETUP", "TRMT_PORTFILM", "OPEN_PORTFILM")
ROTATES = ("CW", "CC")


@dataclass(frozen=True)
class TreatedBeam:
    """A treatment beam.

    Args:
        item: item of the Beam Sequence.
        number: Beam Number.
        mu: monitor units in one fraction.
    """

    item: Dataset
    number: int
    mu: float


def treated_beams(data: Dataset, path: Path) -> tuple[int, list[TreatedBeam]]:
    """Number of fractions, and the treatment beams. Setup fields without monitor units or without an MLC are left out.

    Raises:
        ValueError: a beam that is missing or listed twice, or invalid monitor units.
        UnsupportedPlan: several fraction groups, a beam with an MLC and no monitor units, or a beam with both that is
            not a treatment beam.
    """
    fractions, meterset = _fraction_group(data, path)
    items = {int(item.BeamNumber): item for item in data.BeamSequence}
    if len(items) != len(data.BeamSequence) or not set(meterset) <= set(items):
        raise ValueError(f"{path}: fraction group of beams {sorted(meterset)}, but beams are {sorted(items)}")
    found = (_treated(item, meterset.get(number), f"{path}: beam {number}") for number, item in items.items())
    beams = [beam for beam in found if beam is not None]
    if not beams:
        raise ValueError(f"{path}: no treatment beam, expected arcs")
    return fractions, beams


def treated_numbers(data: Dataset, path: Path) -> list[int]:
    """Numbers of the beams with monitor units."""
    _, meterset = _fraction_group(data, path)
    return sorted(number for number, mu in meterset.items() if mu)


def patient_position(data: Dataset, beams: list[TreatedBeam], path: Path) -> str:
    """Patient position of all beams; empty if the plan does not state it.

    Raises:
        ValueError: a beam that refers to no patient setup.
        UnsupportedPlan: different positions.
    """
    setups = list(data.get("PatientSetupSequence") or [])
    numbers = [str(setup.get("PatientSetupNumber", "")) for setup in setups]
    used: list[Dataset] = []
    for beam in beams:
        referenced = beam.item.get("ReferencedPatientSetupNumber")
        if referenced in (None, ""):
            used += setups
        elif numbers.count(str(referenced)) != 1:
            raise ValueError(f"{path}: beam {beam.number} refers to patient setup {referenced:d}, expected one such")
        else:
            used.append(setups[numbers.index(str(referenced))])
    for setup in used:
        check_attributes(setup, SETUP, f"{path}: patient setup")
    positions = {str(setup.get("PatientPosition") or "") for setup in used} - {""}
    if len(positions) > 1:
        both = " and ".join(sorted(shown_word(position) for position in positions))
        raise UnsupportedPlan(f"{path}: patient positions {both} in one plan, expected one")
    return next(iter(positions), "")


def _fraction_group(data: Dataset, path: Path) -> tuple[int, dict[int, float | None]]:
    """Number of fractions; monitor units by beam number, None if the plan does not state them."""
    groups = data.get("FractionGroupSequence") or []
    if len(groups) != 1:
        raise UnsupportedPlan(f"{path}: {len(groups)} fraction groups, expected one")
    check_attributes(groups[0], FRACTION_GROUP, f"{path}: fraction group")
    fractions = int(groups[0].get("NumberOfFractionsPlanned") or 0)
    if fractions < 1:
        raise ValueError(f"{path}: {fractions} fractions planned, expected at least 1")
    items = list(groups[0].get("ReferencedBeamSequence") or [])
    meterset = {int(item.ReferencedBeamNumber): _monitor_units(item, path) for item in items}
    stated = groups[0].get("NumberOfBeams")
    count = len(items) if stated in (None, "") else int(stated)
    if not len(meterset) == len(items) == count:
        raise ValueError(f"{path}: {len(items)} beams, {len(meterset)} different, in a fraction group of {count}")
    return fractions, meterset


def _monitor_units(item: Dataset, path: Path) -> float | None:
    value = item.get("BeamMeterset")
    if value in (None, ""):
        return None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{path}: beam {item.ReferencedBeamNumber}: Beam Meterset {value:g}, expected monitor units")
    return float(value)


def _treated(item: Dataset, mu: float | None, where: str) -> TreatedBeam | None:
    """A treatment beam; None for a setup field."""
    kind = str(item.get("TreatmentDeliveryType") or "")
    has_mlc = any(
        str(device.get("RTBeamLimitingDeviceType", "")).startswith("MLC")
        for device in item.get("BeamLimitingDeviceSequence") or []
    )
    if mu and kind not in NO_TREATMENT:
        return TreatedBeam(item, int(item.BeamNumber), mu)
    if mu and has_mlc:
        raise UnsupportedPlan(f"{where}: {kind} field with an MLC and {mu:g} MU, expected TREATMENT")
    turns = any(point.get("GantryRotationDirection") in ROTATES for point in item.get("ControlPointSequence") or [])
    if kind not in NO_TREATMENT and (has_mlc or turns):
        lacking = "an MLC" if has_mlc else "a gantry that turns"
        raise UnsupportedPlan(f"{where} has {lacking} and no Beam Meterset, expected monitor units for each such beam")
    return None
