"""Wishes of phantoms and patients, drawn from their seeds or names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lightning_vmat.cases.phantom.portable_random import Draws
from lightning_vmat.plan.wishes import WISHES

SHARE = 0.75  # default share of cases with wishes
SPREAD = 4.0  # factors are log-uniform from 1/SPREAD to SPREAD
DIGITS = 3  # significant digits: powers differ in their last bits between machines
STREAM = 1 << 48  # added to the seed, so that wishes do not change the draws of the anatomy
SEED_BYTES = 6  # of the checksum of a name; below STREAM


def draw_wishes(seed: int, share: float = SHARE, names: Sequence[str] = WISHES) -> dict[str, float]:
    """The wishes of a case: a factor for each name, independent of each other, or none at all.

    Args:
        seed: seed of the phantom, or that of a patient's name, see `name_seed`.
        share: probability that the case has wishes.
        names: names of the wishes.
    """
    draws = Draws(seed + STREAM)
    if not draws.chance(share):
        return {}
    return {name: float(f"{SPREAD ** draws.uniform(-1.0, 1.0):.{DIGITS}g}") for name in names}


def name_seed(name: str) -> int:
    """The seed of a patient's wishes: the same on every machine, and in every cohort that has the patient."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:SEED_BYTES], "big")


def share_of(wishes: bool | float) -> float:
    """The share of the cases that draw wishes: `SHARE` if true, none if false, or the number given.

    Raises:
        ValueError: a share outside [0, 1].
    """
    share = SHARE if wishes is True else float(wishes)
    if not 0 <= share <= 1:
        raise ValueError(f"wishes {share}: expected true, false or a share of the cases from 0 to 1")
    return share


def wishes_manifest(share: float, names: Sequence[str] = WISHES) -> dict[str, object] | None:
    """Settings of the drawn wishes for the manifest; None for a cohort without wishes."""
    return {"share": share, "factors": [1 / SPREAD, SPREAD], "names": list(names)} if share else None
