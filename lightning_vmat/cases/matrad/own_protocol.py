"""A protocol from the objectives of a matRad patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lightning_vmat.cases.matrad.objectives import Translation, dose_gy, translate
from lightning_vmat.cases.matrad.stored_objective import StoredObjective, read_objective
from lightning_vmat.cases.matrad.structures import Voi

COVERED, COVERAGE_DOSE, HOT, HOTTEST_DOSE = "D98", 0.95, "D2", 1.07  # ICRU 50: 95 to 107 % of the prescription
CROPPED = "_cropped"
HEADER = """\
# Objectives of the matRad patient {name}; doses of the whole course in Gy, weights as matRad weighs them.
# Where structures overlap, those that end in {cropped} leave the voxels to structures that matRad gives priority.
# Goals: dose of 95 to 107 % in the targets (ICRU Report 50), and the DVH points and constraints of the file.
"""


@dataclass(frozen=True)
class OwnProtocol:
    """What a patient's own objectives make.

    Args:
        text: YAML of the protocol.
        notes: a line for each objective of which something was left out.
    """

    text: str
    notes: tuple[str, ...]


def own_protocol(
    name: str,
    vois: Sequence[Voi],
    names: Mapping[int, str],
    masks: Mapping[str, NDArray[np.bool_]],
    *,
    fractions: int,
    dose_factor: float = 1.0,
) -> OwnProtocol:
    """The protocol of a patient's own objectives, prescriptions and overlap priorities.

    Args:
        name: of the patient.
        vois: its structures.
        names: of the structures, by row.
        masks: of the structures by name, on the grid of the plan.
        fractions: number of fractions.
        dose_factor: what makes doses of the whole course of the file's.

    Raises:
        ValueError: no objective of a target that gives a prescription, or an objective that makes no sense.
    """
    prescription_gy: dict[str, float] = {}
    cropped: dict[str, dict[str, list[str]]] = {}
    objectives: list[dict[str, Any]] = []
    goals: list[dict[str, Any]] = []
    notes = []
    for voi in (voi for voi in vois if voi.objectives):
        stored = _stored(voi)
        reason = _unused(voi, names, masks)
        above = [] if reason else _with_priority(voi, vois, names, masks)
        if above and (masks[names[voi.row]] <= np.any([masks[one] for one in above], axis=0)).all():
            reason = f"{', '.join(above)} cover all of it"
        if reason:
            notes += [f"{voi.name}: {one.kind}: left out: {reason}" for one in stored]
            continue
        structure = place = names[voi.row]
        if above:
            place = _free_name(structure, {*names.values(), *cropped})
            cropped[place] = {"difference": [structure, *above]}
        if voi.kind == "TARGET":
            prescription_gy |= _prescription(voi, structure, stored, dose_factor)
        for number, one in enumerate(stored, start=1):
            made = _translated(voi, number, one, fractions, dose_factor)
            called = f"{place}.{number}."
            objectives += [{"structure": place, "name": called + line["type"], **line} for line in made.objectives]
            goals += [{"structure": place, **line} for line in made.goals]
            notes += [f"{voi.name}: {one.kind}: {made.note}"] if made.note else []
    _check_prescribed(prescription_gy, vois)
    document = {
        "prescription_gy": prescription_gy,
        "fractions": fractions,
        **({"structures": cropped} if cropped else {}),
        "objectives": objectives,
        "goals": _coverage(prescription_gy) + [goal for at, goal in enumerate(goals) if goal not in goals[:at]],
    }
    text = yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True, default_flow_style=None)
    return OwnProtocol(HEADER.format(name=name, cropped=CROPPED) + text, tuple(notes))


def _with_priority(
    voi: Voi, vois: Sequence[Voi], names: Mapping[int, str], masks: Mapping[str, NDArray[np.bool_]]
) -> list[str]:
    """Structures with objectives that have the voxels shared with this one, as in `matRad_setOverlapPriorities`."""
    above = [names[one.row] for one in vois if one.objectives and one.priority < voi.priority and one.row in names]
    return [name for name in above if name in masks and bool((masks[names[voi.row]] & masks[name]).any())]


def _free_name(structure: str, taken: set[str]) -> str:
    name = f"{structure}{CROPPED}"
    return _free_name(name, taken) if name in taken else name


def _check_prescribed(prescription_gy: Mapping[str, float], vois: Sequence[Voi]) -> None:
    if not prescription_gy:
        targets = ", ".join(voi.name for voi in vois if voi.kind == "TARGET") or "none"
        raise ValueError(
            f"cst: no TARGET (there: {targets}) with an objective that gives its dose: expected a squared deviation or "
            "underdosing or a minimum DVH"
        )


def _unused(voi: Voi, names: Mapping[int, str], masks: Mapping[str, NDArray[np.bool_]]) -> str:
    """Why matRad's optimisation, or ours, does not look at a structure."""
    if voi.kind == "IGNORED":
        return "the structure is of type IGNORED"
    return "" if names.get(voi.row) in masks else "the structure has no voxels"


def _stored(voi: Voi) -> list[StoredObjective]:
    return [
        read_objective(one, f"cst{{{voi.row},6}}{{{at}}} of {voi.name!r}") for at, one in enumerate(voi.objectives, 1)
    ]


def _translated(voi: Voi, number: int, stored: StoredObjective, fractions: int, dose_factor: float) -> Translation:
    try:
        return translate(stored, is_target=voi.kind == "TARGET", fractions=fractions, dose_factor=dose_factor)
    except ValueError as error:
        raise ValueError(f"cst{{{voi.row},6}}{{{number}}} of {voi.name!r}: {stored.kind}: {error}") from error


def _prescription(voi: Voi, structure: str, stored: Sequence[StoredObjective], dose_factor: float) -> dict[str, float]:
    """The dose that a target's objectives ask for: the deviation's, else the highest one to be reached."""
    for kinds in (("SquaredDeviation",), ("SquaredUnderdosing",), ("MinDVH",)):
        doses = {
            dose_gy(one, 0, dose_factor) for one in stored if one.kind in kinds and not one.quantity and one.penalty
        }
        if len(doses) > 1 and kinds == ("SquaredDeviation",):
            listed = " and ".join(f"{dose:g}" for dose in sorted(doses))
            raise ValueError(f"cst{{{voi.row},6}} of {voi.name!r}: squared deviations from {listed} Gy, expected one")
        if doses and max(doses) > 0:
            return {structure: max(doses)}
    return {}


def _coverage(prescription_gy: Mapping[str, float]) -> list[dict[str, Any]]:
    """Goals for the targets; a target around another of a higher dose may be hot."""
    goals: list[dict[str, Any]] = []
    for target, prescribed in prescription_gy.items():
        goals.append({"structure": target, "measure": COVERED, "at_least": COVERAGE_DOSE, "of_prescription": True})
        if prescribed == max(prescription_gy.values()):
            goals.append({"structure": target, "measure": HOT, "at_most": HOTTEST_DOSE, "of_prescription": True})
    return goals
