"""The `vmat` command: finds the function behind a subcommand and turns bad input into one line."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from lightning_vmat.benchmarks import tolerance
from lightning_vmat.callbacks import preemption
from lightning_vmat.commands.table import COMMANDS, OWN_PARSERS

BAD_INPUT = 2  # exit status
USAGE = """usage: vmat COMMAND [OPTIONS]

Learn to plan volumetric modulated arc therapy.

commands:
{commands}

`vmat COMMAND --help` lists the options of a command; `vmat --version` prints the version.
"""


def usage() -> str:
    """The text of `vmat --help`."""
    width = max(len(name) for name in COMMANDS)
    return USAGE.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()))


def split_command(argv: list[str]) -> tuple[str, list[str]]:
    """Split off the full name of the command.

    Returns:
        Name, and the arguments after it.

    Raises:
        ValueError: no such command.
    """
    for words in (2, 1):
        name = " ".join(argv[:words])
        if len(argv) >= words and name in COMMANDS:
            return name, argv[words:]
    similar = [name for name in COMMANDS if argv and name.split()[0] == argv[0]]
    given = " ".join(argv[:2] if similar else argv[:1])
    raise ValueError(f"unknown command {given!r}: expected one of {', '.join(similar or COMMANDS)}")


def group_usage(group: str) -> str:
    """The text of `vmat GROUP --help`, for commands of two words."""
    members = {name: text for name, (_, text) in COMMANDS.items() if name.startswith(f"{group} ")}
    width = max(map(len, members))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in members.items())
    return f"usage: vmat {group} COMMAND [OPTIONS]\n\ncommands:\n{listed}\n"


def dispatch(argv: list[str]) -> int:
    """Run the command that `argv` names, and return its exit status."""
    name, rest = split_command(argv)
    if name == "fit":
        preemption.listen()  # before the imports, which take seconds
    module, function = COMMANDS[name][0].split(":")
    target = getattr(import_module(f"lightning_vmat.commands.{module}"), function)
    if name in OWN_PARSERS:
        target([name, *rest])
        return 0
    from lightning_vmat.commands.arguments import call_from_arguments

    status = call_from_arguments(target, rest, prog=f"vmat {name}")
    return status if isinstance(status, int) else 0


def one_line(error: BaseException) -> str:
    """The message of an error, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def main(argv: list[str] | None = None) -> int:
    """Run `vmat` with the given arguments (the command line's when None).

    Returns:
        Exit status: 0; 1 if a check found a figure out of tolerance or patients were left out of a cohort; 2 for bad
        input, with one line `vmat: error: ...` on stderr (the environment variable `VMAT_TRACEBACK=1` raises the error
        instead); 75 if a fit stopped on SIGUSR1 with a checkpoint; 130 if it was interrupted.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads that spin starve others on a shared machine
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if argv[1:] in (["-h"], ["--help"]) and any(name.startswith(f"{argv[0]} ") for name in COMMANDS):
        print(group_usage(argv[0]), end="")
        return 0
    if argv[0] == "--version":
        from lightning_vmat import __version__

        print(__version__)
        return 0
    try:
        return dispatch(argv)
    except (ValueError, OSError) as error:
        if os.environ.get("VMAT_TRACEBACK") == "1":
            raise
        print(f"vmat: error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except tolerance.ToleranceExceeded as exceeded:
        print(f"vmat: out of tolerance: {one_line(exceeded)}", file=sys.stderr)
        return tolerance.EXCEEDED
    except preemption.TimeIsUp as stopped:
        print(f"vmat: {stopped}", file=sys.stderr)
        return preemption.STOPPED
    except KeyboardInterrupt:
        print("vmat: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
