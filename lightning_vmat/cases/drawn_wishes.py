"""Wishes of phantoms, drawn from their seeds."""

from __future__ import annotations

from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.plan.wishes import WISHES

SHARE = 0.75  # default share of cases with wishes
SPREAD = 4.0  # factors are log-uniform from 1/SPREAD to SPREAD
DIGITS = 3  # significant digits: powers differ in their last bits between machines
STREAM = 1 << 48  # added to the seed, so that wishes do not change the draws of the anatomy


def draw_wishes(seed: int, share: float = SHARE) -> dict[str, float]:
    """The wishes of a phantom: a factor for each of `WISHES`, independent of each other, or none at all.

    Args:
        seed: seed of the phantom.
        share: probability that the phantom has wishes.
    """
    draws = Draws(seed + STREAM)
    if not draws.chance(share):
        return {}
    return {name: float(f"{SPREAD ** draws.uniform(-1.0, 1.0):.{DIGITS}g}") for name in WISHES}


def check_share(share: float) -> None:
    """Raise a ValueError for a share of the cases outside [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"wishes {share}: expected true, false or a share of the cases from 0 to 1")


def wishes_manifest(share: float) -> dict[str, object] | None:
    """Settings of the drawn wishes for the manifest; None for a cohort without wishes."""
    return {"share": share, "factors": [1 / SPREAD, SPREAD], "names": list(WISHES)} if share else None
