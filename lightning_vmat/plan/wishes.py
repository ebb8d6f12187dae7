"""Wishes: factors on the weights of a structure's objectives, by which a planner or physician says what matters more.

A wish is named after a structure (`Rectum`), after both sides of a paired organ (`FemoralHeads`), or `homogeneity`.
Which objectives of a protocol it multiplies is defined in `objectives.wishes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lightning_vmat.plan.checks import is_number

HOMOGENEITY, CONFORMITY = "homogeneity", "Body"
PAIRS = {"FemoralHeads": ("FemoralHeadLeft", "FemoralHeadRight")}
"""Name for both sides of a paired organ -> its structures."""

WISHES = ("Rectum", "Bladder", "FemoralHeads", "PenileBulb", "Bowel", CONFORMITY, HOMOGENEITY)
"""The wishes that phantoms draw and networks see, in the order of their condition channels."""

LEAST, MOST = 1 / 16, 16.0


def check_wishes(wishes: object, where: str) -> dict[str, float]:
    """The wishes as floats.

    Raises:
        ValueError: no mapping, or a factor that is no number from 1/16 to 16, by name.
    """
    if not isinstance(wishes, Mapping):
        raise ValueError(f"{where}: wishes are {wishes!r}, expected names with factors")
    for name, factor in wishes.items():
        if not isinstance(name, str) or not is_number(factor) or not LEAST <= factor <= MOST:
            raise ValueError(f"{where}: wish {name} is {factor!r}, expected a factor from {LEAST:g} to {MOST:g}")
    return {name: float(factor) for name, factor in wishes.items()}


def structure_factor(structure: str, wishes: Mapping[str, float]) -> float:
    """The factor on all objectives of a structure: its own wish times that of the pair it belongs to."""
    names = (structure, *(pair for pair, sides in PAIRS.items() if structure in sides))
    return math.prod(wishes.get(name, 1.0) for name in names)


def log_wishes(wishes: Mapping[str, float]) -> tuple[float, ...]:
    """Natural logarithm of each of `WISHES`, 0 where nothing is wished; of a pair the mean over its two sides.

    Wishes of other names (a target's, say) have no place here.
    """
    values = []
    for name in WISHES:
        sides = PAIRS.get(name, (name,))
        values.append(sum(math.log(structure_factor(side, wishes)) for side in sides) / len(sides))
    return tuple(values)


def wishes_text(wishes: Mapping[str, float]) -> str:
    """The wishes on one line, `Rectum x 4, Bladder x 0.5`; `none` without any."""
    return ", ".join(f"{name} x {factor:.3g}" for name, factor in wishes.items()) or "none"
