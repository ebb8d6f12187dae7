"""Colours of structures and dose, the same in all figures and distinct for colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib

from lightning_vmat.plan.case import BODY, Case

# Okabe and Ito (2008), darkened where needed to hold on white paper; targets take the warm end.
TARGET_COLOURS = ("#d3310b", "#c2368b", "#e08a00")
ORGAN_COLOURS = ("#0072b2", "#00845f", "#8a5a2b", "#2fa4dd", "#6a4fb3", "#5f8f00", "#4c5a67", "#b0860b")
BODY_COLOUR = "#8c98a4"
INK, MUTED, RULE = "#17212b", "#5c6975", "#d5dbe1"
SERIES = ("#0072b2", "#d3310b", "#00845f", "#c2368b", "#e08a00")
DOSE_COLOURS = matplotlib.colormaps["plasma"]
# cold to hot; the 95 % line white, because coverage is read from it
ISODOSES = {0.2: "#6fb1ff", 0.5: "#4fe3f0", 0.8: "#8dffb0", 0.95: "#ffffff", 1.0: "#ffe14d", 1.07: "#ff6ad5"}
_SIDES = ("Left", "Right")


@dataclass(frozen=True)
class StructureStyle:
    """Drawing style of a structure.

    Args:
        colour: hex colour.
        dashed: drawn dashed: the right structure of a pair, which has the colour of the left one.
        is_target: whether it is a target, drawn thicker.
    """

    colour: str
    dashed: bool
    is_target: bool


def structure_styles(case: Case) -> dict[str, StructureStyle]:
    """A style for each non-empty structure: targets first, then organs, then the body.

    Structures that differ only by `Left` and `Right` have the same colour, and the right one is dashed.
    """
    present = [name for name, mask in case.structures.items() if bool(mask.any())]
    targets = [name for name in case.target_names if name in present]
    organs = sorted(name for name in present if name not in targets and name != BODY)
    styles = {
        name: StructureStyle(TARGET_COLOURS[i % len(TARGET_COLOURS)], False, True) for i, name in enumerate(targets)
    }
    families: dict[str, str] = {}
    for name in organs:
        family = name
        for side in _SIDES:
            family = family.replace(side, "")
        colour = families.setdefault(family, ORGAN_COLOURS[len(families) % len(ORGAN_COLOURS)])
        paired = family != name and name.replace("Right", "Left") in organs
        styles[name] = StructureStyle(colour, paired and "Right" in name, False)
    if BODY in present:
        styles[BODY] = StructureStyle(BODY_COLOUR, False, False)
    return styles


@dataclass(frozen=True)
class Isodose:
    """An isodose line.

    Args:
        fraction: fraction of the highest prescription.
        dose_gy: dose, Gy.
        colour: hex colour that contrasts with the wash at this dose.
    """

    fraction: float
    dose_gy: float
    colour: str


def isodose_lines(case: Case) -> list[Isodose]:
    """Isodose lines of a case, in ascending order."""
    prescription_gy = max(case.prescription_gy.values())
    return [Isodose(fraction, fraction * prescription_gy, colour) for fraction, colour in ISODOSES.items()]
