"""One entry of a matRad structure's objectives, in the three ways in which files have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_vmat.cases.matrad.ct import number
from lightning_vmat.cases.matrad.mat_files import MatlabObject, records

OLD_TYPES = {
    "square deviation": ("SquaredDeviation", ("dose",)),
    "square overdosing": ("SquaredOverdosing", ("dose",)),
    "square underdosing": ("SquaredUnderdosing", ("dose",)),
    "min DVH objective": ("MinDVH", ("dose", "volume")),
    "max DVH objective": ("MaxDVH", ("dose", "volume")),
    "mean": ("MeanDose", ("dose",)),
    "EUD": ("EUD", ("dose", "EUD")),
    "max dose constraint": ("MinMaxDose", (0.0, "dose")),
    "min dose constraint": ("MinMaxDose", ("dose", math.inf)),
    "max mean dose constraint": ("MinMaxMeanDose", (0.0, "dose")),
    "min mean dose constraint": ("MinMaxMeanDose", ("dose", math.inf)),
    "max DVH constraint": ("MinMaxDVH", ("dose", 0.0, "volume")),
    "min DVH constraint": ("MinMaxDVH", ("dose", "volume", 100.0)),
}
"""Type before matRad 2.10 -> name of the class, and its parameters as fields or numbers."""
PYRADPLAN_NAMES = {
    "Squared Deviation": "SquaredDeviation",
    "Squared Overdosing": "SquaredOverdosing",
    "Squared Underdosing": "SquaredUnderdosing",
    "Min DVH": "MinDVH",
    "Max DVH": "MaxDVH",
    "Mean Dose": "MeanDose",
    "EUD": "EUD",
}
DIFFERENCES = {"linear": 1.0, "quadratic": 2.0}  # pyRadPlan's words for matRad's numbers
CLASS = "matRad_"


@dataclass(frozen=True)
class StoredObjective:
    """An objective or constraint.

    Args:
        kind: matRad's class without `matRad_`, `SquaredDeviation`; of another one as it stands.
        parameters: in matRad's order and units: Gy, per cent; NaN where the file has none.
        penalty: factor in the sum; NaN for a constraint.
        robustness: `none` for the dose of the plan without errors.
        quantity: what it looks at, if not dose.
    """

    kind: str
    parameters: tuple[float, ...]
    penalty: float
    robustness: str = "none"
    quantity: str = ""

    def parameter(self, at: int, default: float = math.nan) -> float:
        """A parameter, or a default where there is none."""
        value = self.parameters[at] if at < len(self.parameters) else math.nan
        return default if math.isnan(value) else value


def read_objective(stored: Any, where: str) -> StoredObjective:
    """An entry with matRad's `className`, with its older `type`, or with pyRadPlan's `name`.

    Raises:
        ValueError: none of these, an object that only MATLAB can read, or parameters that are no numbers.
    """
    if isinstance(stored, MatlabObject):
        raise ValueError(f"{where} is an object of {stored.class_name}, expected struct(objective) as matRad stores it")
    if not isinstance(stored, Mapping) or not {"className", "type", "name"} & stored.keys():
        raise ValueError(f"{where} has no className, type or name, expected an objective of matRad or pyRadPlan")
    if "className" in stored:
        package, _, name = str(stored["className"]).rpartition(".")
        is_dose = package in ("DoseObjectives", "DoseConstraints")
        kind = name.removeprefix(CLASS) if is_dose else str(stored["className"])
        parameters = _parameters(stored.get("parameters"), where)
    elif "type" in stored:
        kind, names = OLD_TYPES.get(str(stored["type"]), (str(stored["type"]), ()))
        parameters = [
            _optional(stored.get(name), f"{where}.{name}") if isinstance(name, str) else name for name in names
        ]
    else:
        kind = PYRADPLAN_NAMES.get(str(stored["name"]), str(stored["name"]))
        parameters = _parameters(stored.get("parameters"), where)
        if kind == "EUD" and len(parameters) > 1 and parameters[1]:
            parameters[1] = 1 / parameters[1]  # it takes the mean of d^(1/k), matRad of d^k
    quantity = str(stored.get("quantity", "physical_dose"))
    return StoredObjective(
        kind,
        tuple(parameters),
        _optional(stored.get("penalty"), f"{where}.penalty"),
        str(stored.get("robustness", "none")),
        "" if quantity == "physical_dose" else quantity,
    )


def _parameters(stored: Any, where: str) -> list[float]:
    given = stored if isinstance(stored, list) else np.ravel(stored).tolist() if stored is not None else []
    return [_optional(value, f"{where}.parameters{{{at}}}") for at, value in enumerate(given, start=1)]


def _optional(value: Any, name: str) -> float:
    """A number, perhaps infinite; NaN where there is none."""
    if isinstance(value, str) and value.strip() in DIFFERENCES:
        return DIFFERENCES[value.strip()]
    if not records(value):
        return math.nan
    single = not isinstance(value, str | list | Mapping) and np.size(value) == 1
    return float(value) if single and not np.isfinite(value) else number(value, name)
