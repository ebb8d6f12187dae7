"""Effect of wishes on the objectives of a protocol."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vmat.objectives.protocol import Protocol, ProtocolObjective, load_protocol
from lightning_vmat.objectives.squared_overdose import SquaredOverdose
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.wishes import CONFORMITY, HOMOGENEITY, PAIRS, check_wishes, structure_factor


def wished_weight(line: ProtocolObjective, protocol: Protocol, wishes: Mapping[str, float]) -> float:
    """Returns the weight of a protocol's objective times the wishes that concern it.

    * A structure's name multiplies all objectives of that structure. Those of `Body` (falloff, maximum and mean dose
      outside the targets) make the dose conformal, so the wish for conformity is `Body`.
    * A pair's name (`FemoralHeads`) multiplies all objectives of both sides, on top of wishes for one side.
    * `homogeneity` multiplies the `squared_overdose` objectives of the targets, but not their underdose, which is the
      prescription, nor their maximum.
    """
    factor = structure_factor(line.structure, wishes)
    if limits_target_overdose(line, protocol):
        factor *= wishes.get(HOMOGENEITY, 1.0)
    return line.weight * factor


def limits_target_overdose(line: ProtocolObjective, protocol: Protocol) -> bool:
    """Whether the wish for homogeneity concerns an objective."""
    return line.structure in protocol.prescription_gy and isinstance(line.objective, SquaredOverdose)


def known_wishes(protocol: Protocol) -> list[str]:
    """Returns the names of the wishes that concern an objective of a protocol."""
    structures = {line.structure for line in protocol.objectives}
    pairs = {pair for pair, sides in PAIRS.items() if structures & set(sides)}
    homogeneity = (
        {HOMOGENEITY} if any(limits_target_overdose(line, protocol) for line in protocol.objectives) else set()
    )
    return sorted(structures | pairs) + sorted(homogeneity)


def drawn_names(protocol: Protocol) -> tuple[str, ...]:
    """Returns the names of the wishes that the cases of a cohort draw: organs in the protocol's order, then conformity
    and homogeneity.

    Targets are left out, since their prescription is no matter of priority; each side of a paired organ has its own.
    """
    names = dict.fromkeys(line.structure for line in protocol.objectives)
    organs = [name for name in names if name not in protocol.prescription_gy and name != CONFORMITY]
    known = known_wishes(protocol)
    return (*organs, *(name for name in (CONFORMITY, HOMOGENEITY) if name in known))


def with_wishes(case: Case, wishes: Mapping[str, float]) -> Case:
    """Returns the case with these wishes added; they replace the case's own wishes of the same names.

    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.objectives.wishes import with_wishes
    >>> with_wishes(vmat.phantom(0, size="tiny"), {"Rectum": 4}).wishes
    {'Rectum': 4.0}

    Raises:
        ValueError: a factor out of range, or a name for which the case's protocol has no objectives.
    """
    wished = case.with_settings(wishes={**case.wishes, **check_wishes(wishes, f"case {case.case_id}")})
    check_known(wished.wishes, load_protocol(case.protocol), f"case {case.case_id}")
    return wished


def check_known(wishes: Mapping[str, float], protocol: Protocol, where: str) -> None:
    """Raises a ValueError for wishes that concern no objective of the protocol; the message lists known names."""
    known = known_wishes(protocol)
    if unknown := sorted(set(wishes) - set(known)):
        raise ValueError(
            f"{where}: wish for {', '.join(unknown)}: protocol {protocol.name} has objectives for {', '.join(known)}"
        )
