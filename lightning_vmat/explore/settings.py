"""What the user of a session can choose: wishes, normalisation, planner, budget, collimator and arc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lightning_vmat.cases.dicom.dicom_references import lying_supine
from lightning_vmat.objectives.protocol import Protocol
from lightning_vmat.objectives.wishes import check_known, known_wishes
from lightning_vmat.plan.arc import Arc
from lightning_vmat.plan.case import Case
from lightning_vmat.plan.checks import is_number
from lightning_vmat.plan.wishes import CONFORMITY, HOMOGENEITY, PAIRS, check_wishes

NORMALISATIONS = ("none", "D95", "D50")
"""Dose of the target with the highest prescription that is scaled to this prescription."""

ARCS = ("case", "full", "two_full", "partial")
"""Arcs of the case; one full turn; two full turns, back and forth; 240 degrees over the top of the couch."""

EVALUATIONS = 6
"""Dose evaluations of a plan from the current one: little more than a second at base size."""

LEAST_EVALUATIONS, MOST_EVALUATIONS = 3, 200
STOP_DEG, PARTIAL_DEG = 180.0, (240.0, 120.0)  # gantry angles of the machine


@dataclass(frozen=True)
class Settings:
    """The choices from which a plan is made.

    Args:
        wishes: factors on the weights of the protocol's objectives, see `plan.wishes`; a factor of 1 is left out.
        normalisation: one of `NORMALISATIONS`.
        planner: name of a planner, as `api.planner` takes it.
        evaluations: dose evaluations after a change of a wish.
        collimator_deg: collimator angle of the first arc; None for those of the case.
        arc: one of `ARCS`.
    """

    wishes: dict[str, float] = field(default_factory=dict)
    normalisation: str = "none"
    planner: str = "learned"
    evaluations: int = EVALUATIONS
    collimator_deg: float | None = None
    arc: str = "case"

    @property
    def geometry(self) -> tuple[str, float | None]:
        """The settings that change the dose operator."""
        return self.arc, self.collimator_deg

    def changed(self, changes: Mapping[str, Any], protocol: Protocol) -> Settings:
        """Returns the settings with some of them replaced.

        Args:
            changes: new values by name; `wishes` replaces the wishes that it names and keeps the others.
            protocol: the case's protocol.

        Raises:
            ValueError: an unknown name or a value out of range; the message names it.
        """
        if unknown := set(changes) - set(asdict(self)):
            raise ValueError(f"setting {sorted(unknown)[0]}: expected one of {', '.join(asdict(self))}")
        values = dict(changes)
        if "wishes" in values:
            given = check_wishes(values["wishes"], "settings")
            check_known(given, protocol, "settings")
            merged = {**self.wishes, **given}
            values["wishes"] = {name: factor for name, factor in merged.items() if abs(factor - 1) > 1e-6}
        _check({**vars(self), **values})
        return replace(self, **values)

    def as_json(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)


def _check(settings: Mapping[str, Any]) -> None:
    for name, known in (("normalisation", NORMALISATIONS), ("arc", ARCS)):
        if settings[name] not in known:
            raise ValueError(f"{name} {settings[name]!r}: expected one of {', '.join(known)}")
    if not isinstance(settings["planner"], str):
        raise ValueError(f"planner {settings['planner']!r}: expected a name")
    evaluations, angle = settings["evaluations"], settings["collimator_deg"]
    whole = isinstance(evaluations, int) and not isinstance(evaluations, bool)
    if not whole or not LEAST_EVALUATIONS <= evaluations <= MOST_EVALUATIONS:
        raise ValueError(f"evaluations {evaluations!r}: expected {LEAST_EVALUATIONS} to {MOST_EVALUATIONS}")
    if angle is not None and not (is_number(angle) and 0 <= angle < 360):
        raise ValueError(f"collimator angle {angle!r}: expected 0 to 360 degrees")


def session_wishes(case: Case, protocol: Protocol) -> list[str]:
    """Returns the wishes to offer for a case: its targets, its organs (a pair as one), conformity, homogeneity."""
    known = [name for name in known_wishes(protocol) if name not in (CONFORMITY, HOMOGENEITY)]
    paired = {side for pair, sides in PAIRS.items() if pair in known for side in sides}
    organs = [
        name
        for name in known
        if name not in paired and any(part in case.structures for part in PAIRS.get(name, (name,)))
    ]
    targets = [name for name in case.target_names if name in organs]
    ends = [name for name in (CONFORMITY, HOMOGENEITY) if name in known_wishes(protocol)]
    return [*targets, *(name for name in organs if name not in targets), *ends]


def with_geometry(case: Case, settings: Settings, patient_position: str) -> Case:
    """Returns the case with the arcs and the collimator angle of the settings.

    Args:
        case: the case.
        settings: the settings.
        patient_position: true patient position, such as HFP; new arcs never cross the gantry's stop below the couch.

    Raises:
        ValueError: new arcs for a case whose dose influence is stored, and so belongs to its own arcs.
    """
    if settings.arc == "case" and settings.collimator_deg is None:
        return case
    if case.influence_path is not None:
        raise ValueError(f"case {case.case_id}: its stored dose influence belongs to its own arcs and collimator angle")
    arcs = _arcs(case.arcs, settings.arc, patient_position)
    if settings.collimator_deg is not None:
        angles = (settings.collimator_deg, (360.0 - settings.collimator_deg) % 360.0)  # mirrored on the way back
        arcs = tuple(replace(arc, collimator_deg=angles[number % 2]) for number, arc in enumerate(arcs))
    return case.with_settings(arcs=arcs)


def _arcs(own: tuple[Arc, ...], arc: str, patient_position: str) -> tuple[Arc, ...]:
    if arc == "case":
        return own
    first = own[0]
    sector_deg = abs(first.span_deg) / first.control_points
    lowest_deg, start_deg, stop_deg = (
        lying_supine(patient_position, gantry_deg, 0.0)[0] for gantry_deg in (STOP_DEG, *PARTIAL_DEG)
    )
    turn = replace(
        first,
        gantry_start_deg=lowest_deg,
        gantry_stop_deg=lowest_deg,
        direction="clockwise",
        control_points=max(1, round(360.0 / sector_deg)),
    )
    if arc == "full":
        return (turn,)
    if arc == "two_full":
        back = replace(turn, direction="counterclockwise", collimator_deg=(360.0 - turn.collimator_deg) % 360.0)
        return turn, back
    partial = replace(turn, gantry_start_deg=start_deg, gantry_stop_deg=stop_deg)
    return (replace(partial, control_points=max(1, round(abs(partial.span_deg) / sector_deg))),)
