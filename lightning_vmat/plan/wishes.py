"""Wishes: factors on the weights of a structure's objectives, by which a planner or physician sets priorities.

A wish is named after a structure (`Rectum`), after both sides of a paired organ (`FemoralHeads`), or `homogeneity`.
Which objectives of a protocol it multiplies is defined in `objectives.wishes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_vmat.plan.checks import is_number

HOMOGENEITY, CONFORMITY = "homogeneity", "Body"
PAIRS = {"FemoralHeads": ("FemoralHeadLeft", "FemoralHeadRight")}
"""Name for both sides of a paired organ -> its structures."""

WISHES = ("Rectum", "Bladder", "FemoralHeads", "PenileBulb", "Bowel", CONFORMITY, HOMOGENEITY)
"""The wishes that prostate phantoms draw and their networks see, in the order of their condition channels."""

LEAST, MOST = 1 / 16, 16.0


def check_wishes(wishes: object, where: str) -> dict[str, float]:
    """Returns the wishes as floats.

    Raises:
        ValueError: not a mapping, or a factor that is not a number from 1/16 to 16; the message names the wish.
    """
    if not isinstance(wishes, Mapping):
        raise ValueError(f"{where}: wishes are {wishes!r}, expected names with factors")
    for name, factor in wishes.items():
        if not isinstance(name, str) or not is_number(factor) or not LEAST <= factor <= MOST:
            raise ValueError(f"{where}: wish {name} is {factor!r}, expected a factor from {LEAST:g} to {MOST:g}")
    return {name: float(factor) for name, factor in wishes.items()}


def structure_factor(structure: str, wishes: Mapping[str, float]) -> float:
    """Returns the factor on all objectives of a structure: its own wish times that of the pair it belongs to."""
    names = (structure, *(pair for pair, sides in PAIRS.items() if structure in sides))
    return math.prod(wishes.get(name, 1.0) for name in names)


def log_wishes(wishes: Mapping[str, float], names: Sequence[str] = WISHES) -> tuple[float, ...]:
    """Returns the natural logarithm of each named wish, 0 without a wish; for a pair the mean over its two sides.

    Wishes with other names, such as a target's, are ignored.
    """
    values = []
    for name in names:
        sides = PAIRS.get(name, (name,))
        values.append(sum(math.log(structure_factor(side, wishes)) for side in sides) / len(sides))
    return tuple(values)


def wishes_text(wishes: Mapping[str, float]) -> str:
    """Returns the wishes on one line, like `Rectum x 4, Bladder x 0.5`; `none` without wishes."""
    return ", ".join(f"{name} x {factor:.3g}" for name, factor in wishes.items()) or "none"
