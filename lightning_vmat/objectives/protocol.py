"""A planning protocol: prescription, objectives and clinical goals, read from a documented YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lightning_vmat.objectives.base import DoseObjective
from lightning_vmat.objectives.derived import DerivedStructure, parse_derived
from lightning_vmat.objectives.dvh import MaxDvh, MinDvh
from lightning_vmat.objectives.falloff import Falloff
from lightning_vmat.objectives.geud import Geud
from lightning_vmat.objectives.goal import Goal
from lightning_vmat.objectives.max_dose import MaxDose
from lightning_vmat.objectives.mean_dose import MeanDose
from lightning_vmat.objectives.squared_overdose import SquaredOverdose
from lightning_vmat.objectives.squared_underdose import SquaredUnderdose
from lightning_vmat.plan.case import is_protocol_text, protocol_label
from lightning_vmat.registry import check_name, load_plugins, register

OBJECTIVE_TYPES: dict[str, type[DoseObjective]] = {
    "squared_underdose": SquaredUnderdose,
    "squared_overdose": SquaredOverdose,
    "mean": MeanDose,
    "max": MaxDose,
    "max_dvh": MaxDvh,
    "min_dvh": MinDvh,
    "geud": Geud,
    "falloff": Falloff,
}
"""Type in a protocol -> class of the objective."""

_PLACE_KEYS = {"structure", "type", "name", "weight", "limit_fraction", "outside", "margin_mm", "optional"}
T = TypeVar("T")
AnyObjective = TypeVar("AnyObjective", bound=DoseObjective)


def register_objective(name: str) -> Callable[[type[AnyObjective]], type[AnyObjective]]:
    """Registers a user's dose objective for protocols, as `type: NAME`.

    Decorates a frozen dataclass derived from `objectives.base.DoseObjective`, whose fields are numbers >= 0 that the
    protocol gives; `limit_gy` may also be given as `limit_fraction`. For the `vmat` command, `VMAT_PLUGINS` names the
    module with the class. A protocol cannot name a class by import path: data never imports code.

    >>> from dataclasses import dataclass
    >>> import lightning_vmat as vmat
    >>> @vmat.register_objective("squared_mean")
    ... @dataclass(frozen=True)
    ... class SquaredMean(vmat.DoseObjective):
    ...     limit_gy: float
    ...     def __call__(self, dose_gy, voxels):
    ...         return (dose_gy @ voxels.fraction - self.limit_gy).clamp(min=0) ** 2

    Raises:
        ValueError: a bad name or one that is taken, or a class that is not an objective.
    """
    check_name("objective", name)

    def add(kind: type[AnyObjective]) -> type[AnyObjective]:
        if not (isinstance(kind, type) and issubclass(kind, DoseObjective) and is_dataclass(kind)):
            raise ValueError(f"objective {name}: {kind!r}, expected a dataclass derived from DoseObjective")
        register("objective", OBJECTIVE_TYPES, name, kind, kind.__module__)
        return kind

    return add


@dataclass(frozen=True)
class ProtocolObjective:
    """One line of a protocol's objectives.

    Args:
        name: unique name in the protocol; `Structure.type` unless given.
        structure: name of the structure.
        objective: the penalty.
        weight: factor in the sum.
        limit_fraction: limit as a fraction of the case's prescription (the structure's own if it is a target, else the
            highest); None if the limit is in Gy.
        outside: targets whose voxels are excluded.
        margin_mm: distance around those targets that is excluded as well.
        optional: whether a case may lack the structure.
    """

    name: str
    structure: str
    objective: DoseObjective
    weight: float
    limit_fraction: float | None = None
    outside: tuple[str, ...] = ()
    margin_mm: float = 0.0
    optional: bool = False

    def for_prescription(self, prescription_gy: dict[str, float]) -> DoseObjective:
        """Returns the penalty with its limit in Gy for a prescription by target."""
        if self.limit_fraction is None:
            return self.objective
        prescribed = prescription_gy.get(self.structure, max(prescription_gy.values()))
        return replace(self.objective, limit_gy=self.limit_fraction * prescribed)  # type: ignore[type-var]


@dataclass(frozen=True)
class Protocol:
    """A planning protocol: prescription, objectives and clinical goals.

    Args:
        name: name of the YAML.
        prescription_gy: dose of the whole course by target.
        fractions: number of fractions.
        objectives: objectives that the optimisation minimises.
        goals: clinical goals by which plans are evaluated.
        derived: derived structures, see `objectives/derived.py`.
    """

    name: str
    prescription_gy: dict[str, float]
    fractions: int
    objectives: tuple[ProtocolObjective, ...]
    goals: tuple[Goal, ...]
    derived: tuple[DerivedStructure, ...] = ()

    @property
    def structure_names(self) -> list[str]:
        """Names of the structures in objectives and goals, each once."""
        return list(
            dict.fromkeys([*(line.structure for line in self.objectives), *(goal.structure for goal in self.goals)])
        )


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Loads a protocol by the name of a shipped YAML, from a YAML file, or from YAML text of several lines.

    >>> from lightning_vmat.objectives.protocol import load_protocol
    >>> protocol = load_protocol("prostate_60gy_20fx")
    >>> protocol.prescription_gy, protocol.fractions
    ({'PTV': 60.0}, 20)
    >>> goal = protocol.goals[0]
    >>> goal.structure, goal.measure
    ('PTV', 'D99')

    Raises:
        ValueError: no such protocol, or a file with an invalid key or value; the message names both.
    """
    text, shown = _text(name_or_path), protocol_label(str(name_or_path))
    try:
        return _parse(Path(shown).stem, yaml.safe_load(text))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"protocol {shown}: {' '.join(str(error).split())}") from error


def protocol_checksum(name_or_path: str | Path) -> str:
    """Returns the first 12 digits of the SHA-256 of a protocol's YAML text, which identify its version.

    Raises:
        ValueError: no such protocol.
    """
    return hashlib.sha256(_text(name_or_path).encode()).hexdigest()[:12]


def _text(name_or_path: str | Path) -> str:
    """Returns the YAML text of a shipped protocol or of a file, or the text itself.

    Raises:
        ValueError: none of these exists, or the file is not text.
    """
    if is_protocol_text(str(name_or_path)):
        return str(name_or_path)
    shipped = resources.files("lightning_vmat.objectives") / "protocols" / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    if not Path(name_or_path).is_file():
        raise ValueError(f"protocol {name_or_path}: neither a shipped protocol nor a YAML file")
    try:
        return Path(name_or_path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"protocol {name_or_path}: {error}") from error


def _parse(name: str, document: object) -> Protocol:
    values = _mapping("document", document, {"prescription_gy", "fractions", "objectives", "goals", "structures"})
    prescription = values.get("prescription_gy")
    if not isinstance(prescription, dict) or not prescription:
        raise ValueError("prescription_gy: expected target names with their dose in Gy")
    prescription_gy = {str(target): _number(f"prescription_gy.{target}", dose) for target, dose in prescription.items()}
    fractions = values.get("fractions")
    if not isinstance(fractions, int) or isinstance(fractions, bool) or fractions < 1:
        raise ValueError(f"fractions: got {fractions!r}, expected a whole number >= 1")
    objectives = [
        _objective(f"objectives[{i}]", line, prescription_gy) for i, line in enumerate(_list(values, "objectives"))
    ]
    names = [objective.name for objective in objectives]
    for i, repeated in enumerate(names):
        if repeated in names[:i]:
            raise ValueError(f"objectives[{i}].name: {repeated!r} is taken, give this one another name")
    goals = [_goal(f"goals[{i}]", line) for i, line in enumerate(_list(values, "goals"))]
    derived = parse_derived(values.get("structures", {}))
    return Protocol(name, prescription_gy, fractions, tuple(objectives), tuple(goals), derived)


def _objective(where: str, line: object, prescription_gy: dict[str, float]) -> ProtocolObjective:
    kind = line.get("type") if isinstance(line, dict) else None
    if isinstance(kind, str) and kind not in OBJECTIVE_TYPES:
        load_plugins()
    if not isinstance(kind, str) or kind not in OBJECTIVE_TYPES:
        raise ValueError(f"{where}.type: got {kind!r}, expected one of {', '.join(OBJECTIVE_TYPES)}")
    parameters = {field.name for field in fields(OBJECTIVE_TYPES[kind])}  # type: ignore[arg-type]
    values = _mapping(
        where, line, (_PLACE_KEYS if "limit_gy" in parameters else _PLACE_KEYS - {"limit_fraction"}) | parameters
    )
    structure, weight = _name(where, values), _number(f"{where}.weight", values.get("weight"))
    given = {key: _number(f"{where}.{key}", values[key]) for key in parameters & values.keys()}
    limit_fraction = None
    if "limit_fraction" in values:
        limit_fraction = _number(f"{where}.limit_fraction", values["limit_fraction"])
    if "limit_gy" in parameters and (limit_fraction is None) == ("limit_gy" not in given):
        raise ValueError(f"{where}: expected exactly one of limit_gy and limit_fraction")
    if limit_fraction is not None:
        given["limit_gy"] = limit_fraction * prescription_gy.get(structure, max(prescription_gy.values()))
    outside = values.get("outside", [])
    outside = [outside] if isinstance(outside, str) else outside
    if not isinstance(outside, list) or not set(map(str, outside)) <= prescription_gy.keys():
        raise ValueError(f"{where}.outside: got {outside!r}, expected targets among {sorted(prescription_gy)}")
    return ProtocolObjective(
        name=str(values.get("name", f"{structure}.{kind}")),
        structure=structure,
        objective=_build(where, OBJECTIVE_TYPES[kind], given),
        weight=weight,
        limit_fraction=limit_fraction,
        outside=tuple(outside),
        margin_mm=_number(f"{where}.margin_mm", values.get("margin_mm", 0.0)),
        optional=_flag(where, values, "optional"),
    )


def _goal(where: str, line: object) -> Goal:
    values = _mapping(where, line, {field.name for field in fields(Goal)})
    limits = {str(key): _number(f"{where}.{key}", values[key]) for key in ("at_least", "at_most") if key in values}
    flags = {key: _flag(where, values, key) for key in ("of_prescription", "optional")}
    return _build(
        where, Goal, {"structure": _name(where, values), "measure": str(values.get("measure")), **limits, **flags}
    )


def _build(where: str, kind: type[T], values: dict[str, Any]) -> T:
    needed = {field.name for field in fields(kind) if field.default is MISSING}  # type: ignore[arg-type]
    if needed - values.keys():
        raise ValueError(f"{where}: {', '.join(sorted(needed - values.keys()))} missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _mapping(where: str, value: object, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {value!r}, expected keys with values")
    for key in value:
        if key not in keys:
            raise ValueError(f"{where}: unknown key {key!r}, expected {', '.join(sorted(keys))}")
    return value


def _list(values: dict[str, Any], key: str) -> list[object]:
    if not isinstance(values.get(key), list) or not values[key]:
        raise ValueError(f"{key}: expected a list with at least one entry")
    return list(values[key])


def _name(where: str, values: dict[str, Any]) -> str:
    structure = values.get("structure")
    if not isinstance(structure, str) or not structure:
        raise ValueError(f"{where}.structure: got {structure!r}, expected the name of a structure")
    return structure


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"{where}: got {value!r}, expected a number >= 0")
    return float(value)


def _flag(where: str, values: dict[str, Any], key: str) -> bool:
    flag = values.get(key, False)
    if not isinstance(flag, bool):
        raise ValueError(f"{where}.{key}: got {flag!r}, expected true or false")
    return flag
