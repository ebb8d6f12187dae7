"""The values that are allowed in an RTPLAN. The dose model covers one kind of beam; all other kinds are refused.

`PLAN`, `FRACTION_GROUP`, `SETUP`, `BEAM` and `CONTROL_POINT` give the allowed values of each attribute, `CONSTANT` what
must not change from one control point of a beam to the next. Absent and empty attributes are allowed.

Reference: DICOM PS3.3, C.8.8.9 to C.8.8.14.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.files import shown_word

SOURCE_AXIS_MM = 1000.0
FULL_TURN_DEG = 360.0


class UnsupportedPlan(ValueError):
    """A valid plan of a kind that is not modelled."""


@dataclass(frozen=True)
class Word:
    """One defined term, with a note that explains it in messages."""

    term: str
    note: str = ""

    @property
    def expected(self) -> str:
        """What a valid file says here, for error messages."""
        return f"{self.term} ({self.note})" if self.note else self.term

    def allows(self, value: Any) -> bool:
        """Whether a value is the expected term."""
        return str(value) == self.term


@dataclass(frozen=True)
class Number:
    """A number within a tolerance; an angle may differ by full turns."""

    value: float
    tolerance: float = 0.01
    period: float = math.inf

    @property
    def expected(self) -> str:
        """What a valid file says here, for error messages."""
        return f"{self.value:g}"

    def allows(self, value: Any) -> bool:
        """Whether a value is within the tolerance, up to whole periods."""
        away = abs(_number(value) - self.value)
        return min(away % self.period, self.period - away % self.period) <= self.tolerance


@dataclass(frozen=True)
class Nothing:
    """No items of a sequence, or a count of 0."""

    expected: str = "none"

    def allows(self, value: Any) -> bool:
        """Whether a count of items is 0."""
        return _number(value) == 0


Rule = Word | Number | Nothing
ANGLE_0 = Number(0.0, period=FULL_TURN_DEG)
STILL = Word("NONE")
PLAN: Mapping[str, Rule] = {"RTPlanGeometry": Word("PATIENT")}
FRACTION_GROUP: Mapping[str, Rule] = {"NumberOfBrachyApplicationSetups": Nothing()}
SETUP: Mapping[str, Rule] = {"ShieldingDeviceSequence": Nothing()}
BEAM: Mapping[str, Rule] = {
    "RadiationType": Word("PHOTON", "arcs of photons only"),
    "BeamType": Word("DYNAMIC", "an arc, no static or step-and-shoot field"),
    "TreatmentDeliveryType": Word("TREATMENT"),
    "HighDoseTechniqueType": Word("NORMAL"),
    "PrimaryDosimeterUnit": Word("MU"),
    "SourceAxisDistance": Number(SOURCE_AXIS_MM, tolerance=0.5),
    "EnhancedRTBeamLimitingDeviceDefinitionFlag": Word("NO"),
    "NumberOfCompensators": Nothing(),
    "CompensatorSequence": Nothing(),
    "NumberOfBoli": Nothing(),
    "ReferencedBolusSequence": Nothing(),
    "NumberOfBlocks": Nothing(),
    "BlockSequence": Nothing(),
    "ApplicatorSequence": Nothing(),
    "GeneralAccessorySequence": Nothing(),
    "TotalBlockTrayFactor": Number(1.0, tolerance=1e-4),
    "TotalCompensatorTrayFactor": Number(1.0, tolerance=1e-4),
    "TotalBlockTrayWaterEquivalentThickness": Number(0.0),
    "TotalCompensatorTrayWaterEquivalentThickness": Number(0.0),
    "TotalWedgeTrayWaterEquivalentThickness": Number(0.0),
}
WEDGE_POSITION: Mapping[str, Rule] = {"WedgePosition": Word("OUT")}
CONTROL_POINT: Mapping[str, Rule] = {
    "GantryPitchAngle": ANGLE_0,
    "GantryPitchRotationDirection": STILL,
    "TableTopPitchAngle": ANGLE_0,
    "TableTopPitchRotationDirection": STILL,
    "TableTopRollAngle": ANGLE_0,
    "TableTopRollRotationDirection": STILL,
    "TableTopEccentricAngle": ANGLE_0,
    "TableTopEccentricRotationDirection": STILL,
    "BeamLimitingDeviceRotationDirection": STILL,
    "PatientSupportRotationDirection": STILL,
    "EnhancedRTBeamLimitingOpeningSequence": Nothing(),
}
CONSTANT: Mapping[str, Number] = {
    "BeamLimitingDeviceAngle": ANGLE_0,
    "PatientSupportAngle": ANGLE_0,
    "IsocenterPosition": Number(0.0),
    "TableTopVerticalPosition": Number(0.0, tolerance=0.1),
    "TableTopLongitudinalPosition": Number(0.0, tolerance=0.1),
    "TableTopLateralPosition": Number(0.0, tolerance=0.1),
}


def check_attributes(data: Dataset, rules: Mapping[str, Rule], where: str) -> None:
    """Raise an UnsupportedPlan for the first attribute with a value that the table does not allow."""
    for keyword, rule in rules.items():
        value = data.get(keyword)
        if not _is_blank(value) and not rule.allows(value):
            raise UnsupportedPlan(f"{where}: {keyword} {_described(value)}, expected {rule.expected}")


def check_beam(beam: Dataset, where: str) -> None:
    """Raise an UnsupportedPlan if a beam or one of its control points is not of the modelled kind."""
    check_attributes(beam, BEAM, where)
    points = list(beam.ControlPointSequence)
    _check_wedges(beam, points[0], where)
    for index, point in enumerate(points):
        check_attributes(point, CONTROL_POINT, f"{where}, control point {index}")
        for wedge in point.get("WedgePositionSequence") or []:
            check_attributes(wedge, WEDGE_POSITION, f"{where}, control point {index}")
    for keyword, tolerance in CONSTANT.items():
        _check_constant(points, keyword, tolerance, where)


def _check_wedges(beam: Dataset, first: Dataset, where: str) -> None:
    """Allow listed wedges if all are out at the first control point; `WEDGE_POSITION` covers the other points."""
    listed = max(len(beam.get("WedgeSequence") or []), int(beam.get("NumberOfWedges") or 0))
    out = len(first.get("WedgePositionSequence") or [])
    if listed > out:
        raise UnsupportedPlan(f"{where}: NumberOfWedges {listed}, expected none, or all of them out")


def _check_constant(points: list[Dataset], keyword: str, tolerance: Number, where: str) -> None:
    """Raise if an attribute at a later control point differs from the first."""
    first: Any = None
    for index, point in enumerate(points):
        value = point.get(keyword)
        if _is_blank(value):
            continue
        first = value if first is None else first
        differences = np.ravel(_numbers(value)) - np.ravel(_numbers(first)) if _same_count(value, first) else [math.nan]
        if not all(tolerance.allows(difference) for difference in differences):
            raise UnsupportedPlan(
                f"{where}, control point {index}: {keyword} {_described(value)} after {_described(first)}, expected a "
                "constant value during the beam"
            )


def _same_count(one: Any, other: Any) -> bool:
    return np.size(_numbers(one)) == np.size(_numbers(other))


def _numbers(value: Any) -> Any:
    return [_number(part) for part in value] if _is_several(value) else _number(value)


def _number(value: Any) -> float:
    """A value as a number, or the number of items of a sequence; NaN for anything else."""
    try:
        return float(len(value)) if _is_several(value) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_several(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def _is_blank(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _described(value: Any) -> str:
    """A value in a form that is safe for messages."""
    if not _is_several(value):
        number = _number(value)
        return shown_word(value) if math.isnan(number) else f"{number:g}"
    if len(value) and isinstance(value[0], Dataset):
        return f"of {len(value)} items"
    return f"({', '.join(f'{_number(part):g}' for part in value)})"
