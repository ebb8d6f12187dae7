"""`vmat completion`: a script that lets a shell complete commands, options and their values at the Tab key."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from lightning_vmat.commands.arguments import build_parser
from lightning_vmat.commands.table import COMMANDS
from lightning_vmat.commands.training import recipe_parsers

PATHS = ("config", "cohort", "ckpt_path", "default_root_dir", "logger")  # options whose values are files or folders


def completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print the completion script of a shell: `vmat completion bash > ~/.local/share/bash-completion/completions/vmat`.

    The script holds all names, so that no Python runs at the Tab key. Write it anew after an update.

    Args:
        shell: the shell that is to read it.

    Raises:
        ValueError: shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise ValueError("completion: needs shtab, expected after pip install lightning-vmat[completion]")
    print(command_tree().get_completion_script(f"shtab-{shell}"))


def command_tree() -> ArgumentParser:
    """One parser for `vmat` with every command below it: `prepare phantom` is `phantom` below `prepare`."""
    tree = ArgumentParser(prog="vmat", description="Learn to plan volumetric modulated arc therapy.")
    commands = tree.add_subcommands(required=False, dest="command")
    groups = {"": commands}
    recipes = recipe_parsers()
    for name, (target, about) in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            below = commands.add_subcommand(group, ArgumentParser(), help=f"{group} ...")
            groups[group] = below.add_subcommands(required=False, dest="kind")
        groups[group].add_subcommand(
            word, plain(recipes[name]) if name in recipes else parser_of(target, name), help=about
        )
    return tree


def parser_of(target: str, name: str) -> ArgumentParser:
    """The parser of a command that is a function."""
    module, function = target.split(":")
    if name == "submit":
        function = "submit"
    return build_parser(getattr(import_module(f"lightning_vmat.commands.{module}"), function), f"vmat {name}")


def plain(parser: ArgumentParser) -> ArgumentParser:
    """The names of a parser's options without their types: those of a recipe lead to every class of torch.

    Options that name a file or folder keep completing to one.
    """
    bare = ArgumentParser(prog=parser.prog)
    for action in parser._actions:
        names = [name for name in action.option_strings if not name.endswith((".help", "+"))]
        if names and "--help" not in names and not any(name.startswith("--print_") for name in names):
            path = any(name.endswith(PATHS) for name in names)
            bare.add_argument(*names, type=Path if path else str)
    return bare
