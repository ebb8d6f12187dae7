"""Checks of values that users write into files, before anything is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any


def is_number(value: object) -> bool:
    """Whether a value is a finite number; `True` and `False` are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple | list) and all(is_number(value) for value in values)


KINDS: dict[object, tuple[Callable[[Any], bool], str]] = {
    "float": (is_number, "a finite number"),
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str) and bool(value), "text"),
    "tuple[float, ...]": (_are_numbers, "a list of finite numbers"),
    "tuple[float, float, float]": (lambda values: _are_numbers(values) and len(values) == 3, "three finite numbers"),
    "tuple[float, float, float, float] | None": (
        lambda values: values is None or (_are_numbers(values) and len(values) == 4),
        "four finite numbers, or none",
    ),
}
"""Annotation of a field -> whether a value is of that kind, and its name."""


def check_kinds(dataclass: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Checks values against the annotations of a dataclass's fields.

    Fields without a value are not checked, nor are fields whose annotation is not in `KINDS`.

    Returns:
        The values, with integers converted to float and lists to tuples where the annotation asks for it.

    Raises:
        ValueError: a value is not of its field's kind; the message names the field.
    """
    kinds = {field.name: field.type for field in fields(dataclass) if field.type in KINDS}
    for name in [name for name in kinds if name in values]:
        matches, expected = KINDS[kinds[name]]
        if not matches(values[name]):
            raise ValueError(f"{where}: {name} is {values[name]!r}, expected {expected}")
    return {name: _converted(value, kinds.get(name)) for name, value in values.items()}


def check_values(dataclass: type[Any], values: object, where: str) -> dict[str, Any]:
    """Checks the keys and values of a file against the fields of a dataclass; fields with a default may be missing.

    Returns:
        Values for the dataclass, see `check_kinds`.

    Raises:
        ValueError: not a mapping, a missing or unknown key, or a value of the wrong kind; the message names the key.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {values!r}, expected keys and values")
    required = {field.name: field.default is MISSING for field in fields(dataclass)}
    for key in values:
        if key not in required:
            raise ValueError(f"{where}: key {key} is unknown")
    for key in required:
        if required[key] and key not in values:
            raise ValueError(f"{where}: key {key} is missing")
    return check_kinds(dataclass, values, where)


def _converted(value: Any, kind: object) -> Any:
    if kind == "float":
        return float(value)
    numbers = str(kind).startswith("tuple[float") and value is not None
    return tuple(float(number) for number in value) if numbers else value
