"""Names of the classes that a configuration may give without their modules, as in `class_path: Teacher`.

jsonargparse resolves a bare name among the imported subclasses of the expected type. So this module imports the
package's own recipes, networks, noise distributions, sampler, learned optimizer, callbacks and logger.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from lightning_vmat.callbacks import checkpoint, dose_volumes, figures, wandb_run
from lightning_vmat.diffusion import heun_sampler, noise
from lightning_vmat.l2o import aperture_lstm, learned
from lightning_vmat.networks.critic import FluenceCritic
from lightning_vmat.networks.denoiser import FluenceDenoiser
from lightning_vmat.recipes import distillation, learned_optimizer, regression, teacher
from lightning_vmat.recipes.base import PlanRecipe
from lightning_vmat.registry import PACKAGE, import_object

IMPORTED = (
    aperture_lstm,
    checkpoint,
    distillation,
    dose_volumes,
    figures,
    heun_sampler,
    learned,
    learned_optimizer,
    noise,
    regression,
    teacher,
    wandb_run,
)
"""Modules whose classes are known by their bare names."""
NETWORKS = (FluenceDenoiser, FluenceCritic)  # what to offer where any torch module is accepted
BASES: dict[str, type] = {"model": PlanRecipe, "trainer.callbacks": Callback, "trainer.logger": Logger}
"""Key of a configuration -> type of what it describes; the arguments of a class have the types of its signature."""
UNKNOWN = re.compile(r"Expected a dot import path string: (\w+)")
KEY = re.compile(r'Parser key "([\w.]+)"')
CLASS = re.compile(r"Problem with given class_path '([\w.]+)'")


def unknown_class(message: str) -> str | None:
    """A clear message in place of jsonargparse's about a bare class name that nothing answers to.

    Args:
        message: jsonargparse's, on one line.

    Returns:
        The key, the name, and the names to choose from; None for a message about something else.
    """
    name, keys = UNKNOWN.search(message), KEY.findall(message)
    if name is None or not keys:
        return None
    base = expected_type(keys[-1], CLASS.findall(message))
    if base is None:
        return None
    names = ", ".join(sorted(class_names(base)))
    return f"{'.init_args.'.join(keys)}: no class {name[1]}; expected {names}, or the full import path of another class"


def expected_type(key: str, owners: list[str]) -> type | None:
    """The type of a configuration's key, or of an argument of the innermost class that owns it."""
    if not owners:
        return BASES.get(key)
    owner = import_object("class", owners[-1])
    if not callable(owner):
        return None
    try:
        parameters = inspect.signature(owner, eval_str=True).parameters
    except (ValueError, TypeError, NameError):  # a class of another library that does not tell
        return None
    return first_class(parameters[key].annotation) if key in parameters else None


def first_class(hint: Any) -> type | None:
    """The class of a type hint: of `X | None` and of a function that returns `X` it is `X`."""
    if inspect.isclass(hint):
        return hint
    classes = [one for one in get_args(hint) if inspect.isclass(one) and one is not type(None)]
    return classes[-1] if classes else None


def class_names(base: type) -> set[str]:
    """Names of the public, concrete classes of a kind; of networks only those that see fluence maps."""
    found = NETWORKS if base is nn.Module else subclasses(base)
    return {one.__name__ for one in found if not inspect.isabstract(one) and not is_bare_base(one, base)}


def is_bare_base(one: type, base: type) -> bool:
    """Whether a class is another library's base class itself (`Callback`, `Optimizer`), of no use by itself."""
    return one is base and not one.__module__.startswith(f"{PACKAGE}.")


def subclasses(base: type) -> Iterator[type]:
    """A class and everything derived from it so far, without private ones."""
    if not any(part.startswith("_") for part in (*base.__module__.split("."), base.__name__)):
        yield base
    derived: type
    for derived in base.__subclasses__():
        yield from subclasses(derived)
