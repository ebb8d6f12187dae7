"""Checks of values that people write into files, before anything is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any


def is_number(value: object) -> bool:
    """Whether it is a finite number; a truth value is none."""
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
}
"""Annotation of a field -> whether a value is of that kind, and its name."""


def check_kinds(dataclass: type[Any], values: Mapping[str, Any], where: str) -> None:
    """Raise a ValueError that names the first value that is not of its field's kind.

    Fields without a value, and those with other annotations than in `KINDS`, are left alone.
    """
    for field in fields(dataclass):
        if field.name in values and field.type in KINDS:
            matches, expected = KINDS[field.type]
            if not matches(values[field.name]):
                raise ValueError(f"{where}: {field.name} is {values[field.name]!r}, expected {expected}")


def check_values(dataclass: type[Any], values: object, where: str) -> dict[str, Any]:
    """Values for the fields of a dataclass, as a file gives them: lists become tuples, defaults may be missing.

    Raises:
        ValueError: no mapping, a key that is missing or unknown, or a value of the wrong kind, by name.
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
    check_kinds(dataclass, values, where)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
