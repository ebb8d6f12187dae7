"""Names of planners, optimizers, objectives and readers: the package's own, and those that users add.

Users' classes are found in one of two ways:

* by registration, with a decorator such as `register_planner("mine")`, in a module that is imported first. The `vmat`
  command imports the modules that the environment variable `VMAT_PLUGINS` names, separated by commas;
* by import path, `package.module.Name`, wherever the user types a name. Data cannot use import paths: a protocol or a
  case can only name what is registered.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import TypeVar

T = TypeVar("T")

PLUGINS = "VMAT_PLUGINS"
"""Environment variable: modules to import, separated by commas, before an unknown name is refused."""

PACKAGE = __name__.partition(".")[0]
_owners: dict[tuple[str, str], str] = {}  # (kind, name) -> module, for values that users registered


def register(kind: str, known: dict[str, T], name: str, value: T, module: str) -> None:
    """Register a value under a name. A definition may be replaced from the same module, as in a notebook.

    Args:
        kind: kind of the value, for messages.
        known: values by name; the new one is added.
        name: name of letters, digits, `_` and `-`; dots, `+`, `@`, `=` and `,` have a meaning on command lines.
        value: value to register.
        module: module of its definition.

    Raises:
        ValueError: see `check_name`; a name that belongs to the package or to another module.
    """
    check_name(kind, name)
    owner = _owners.get((kind, name), PACKAGE)
    if name in known and owner != module:
        raise ValueError(f"{kind} {name!r}: the name is taken by {owner}")
    known[name] = value
    _owners[kind, name] = module


def check_name(kind: str, name: object) -> None:
    """Raise a ValueError unless it is a name: a decorator without its name in brackets gets the class instead."""
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(
            f'{kind} {name!r}: expected a name of letters, digits, _ and -, as in @register_{kind}("name")'
        )


def find(kind: str, known: Mapping[str, T], name: str) -> T:
    """Look up a registered value. For an unknown name, the modules in `VMAT_PLUGINS` are imported first.

    Raises:
        ValueError: an unknown name, or a module that cannot be imported.
    """
    if name not in known:
        load_plugins()
    if name not in known:
        raise ValueError(f"{kind} {name!r}: expected one of {', '.join(known)}")
    return known[name]


def load_plugins() -> None:
    """Imports the modules that `VMAT_PLUGINS` names.

    Raises:
        ValueError: one of them cannot be imported.
    """
    for module in filter(None, (part.strip() for part in os.environ.get(PLUGINS, "").split(","))):
        try:
            import_module(module)
        except ImportError as error:
            raise ValueError(f"{PLUGINS} {module}: cannot be imported ({error})") from error


def is_import_path(name: str) -> bool:
    """Whether a name has the form `package.module.Name`."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def import_object(kind: str, path: str) -> object:
    """Returns the object at an import path `package.module.Name`.

    Raises:
        ValueError: no such module, or no such name in it.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {path}: cannot be imported ({error})") from error
