"""Makes a command line from the signature and docstring of a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser


def build_parser(function: Callable[..., Any], prog: str) -> ArgumentParser:
    """A parser for the function: keyword-only parameters are options, the others without a default are positional."""
    parameters = inspect.signature(function).parameters.values()
    options: set[str | int] = set()
    positionals: set[str | int] = set()
    for parameter in parameters:
        required = parameter.kind is not parameter.KEYWORD_ONLY and parameter.default is parameter.empty
        (positionals if required else options).add(parameter.name)
    description = (inspect.getdoc(function) or "").partition("\n\n")[0]
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=options)
    parser.add_function_arguments(function, as_group=False, as_positional=False, skip=positionals)
    return parser


def call_from_arguments(function: Callable[..., Any], arguments: list[str], prog: str) -> Any:
    """Call the function with the arguments of a command line.

    Returns:
        What the function returns.

    Raises:
        ValueError: an argument is unknown, missing or of the wrong type.
    """
    return function(**parse(function, arguments, prog))


def parse(function: Callable[..., Any], arguments: list[str], prog: str) -> dict[str, Any]:
    """Parse the arguments of a function, by name, converted to the types in its signature.

    Raises:
        ValueError: an argument is unknown, missing or of the wrong type.
    """
    parser = build_parser(function, prog)
    try:
        return dict(parser.instantiate(parser.parse_args(spelled_out(arguments, function))).as_dict())
    except ArgumentError as error:
        raise ValueError(f"{clear_message(error)} (see {prog} --help)") from error


def spelled_out(arguments: list[str], function: Callable[..., Any]) -> list[str]:
    """Rewrite options in the form that jsonargparse accepts.

    Hyphens in names become underscores, lone switches get a value (`--as-dicom` is `--as_dicom true`), and an option
    that maps names to numbers may be given name by name (`--wish Rectum=4` is `--wish.Rectum=4`).

    Raises:
        ValueError: such a name without a number.
    """
    parameters = inspect.signature(function).parameters.items()
    mappings = {f"--{name}" for name, parameter in parameters if "dict[str, float]" in str(parameter.annotation)}
    switches = {f"--{name}" for name, parameter in parameters if isinstance(parameter.default, bool)}
    written: list[str] = []
    for argument, following in zip(arguments, [*arguments, "--"][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            argument = name + equals + value
        if written and written[-1] in mappings and not argument.startswith(("-", "{")):
            if not equals:
                raise ValueError(f"{written[-1]} {argument}: expected NAME=NUMBER (see --help)")
            written[-1] += f".{argument}"
        elif name in mappings and "=" in value:
            written.append(f"{name}.{value}")
        else:
            written += [argument, "true"] if argument in switches and following.startswith("--") else [argument]
    return written


def clear_message(error: Exception) -> str:
    """The message of an error, without the types that jsonargparse tried, or the traceback of a loading process."""
    text = str(error)
    if text.startswith("Caught ValueError in DataLoader worker"):  # with the traceback of the worker, whose last line
        text = text.rpartition("ValueError: ")[2]  # is the error
    text = " ".join(text.split())
    text = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", "", text)
    text = re.sub(r"( -)? Expected a <class 'NoneType'>", "", text)
    text = re.sub(r" Given value type: .*? Given value: (\S+)$", r". Got value: \1", text)  # one word only
    return re.sub(r" Given value type: .*$", "", text)
