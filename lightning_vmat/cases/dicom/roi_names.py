"""Maps the names of ROIs to the structures of a protocol, by a documented YAML file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from lightning_vmat.cases.dicom.optimization_names import is_optimization
from lightning_vmat.cases.dicom.rtstruct import Roi
from lightning_vmat.files.yaml_file import read_mapping
from lightning_vmat.plan.case import BODY

SHIPPED = "roi_names.yaml"
SECTIONS = ("body", "targets", "structures", "support")
OPTIONAL = "optimization"  # taken from the shipped file if a file has none
ROUNDS = ("exact name", "type", "loose name")
SUPPORT_TYPES = ("SUPPORT", "FIXATION", "BOLUS")
ROI_TYPE = r"<([A-Z_]+)>"


@dataclass(frozen=True)
class Match:
    """A ROI that becomes a structure.

    Args:
        roi: the ROI.
        how: `exact name`, `type PTV` or `loose name`.
    """

    roi: Roi
    how: str

    @property
    def name(self) -> str:
        """Name of the ROI."""
        return self.roi.name


@dataclass(frozen=True)
class RoiNames:
    """Regular expressions for plain names and types of ROIs, in order of preference.

    Args:
        body: expressions for the outline.
        targets: expressions by target name.
        structures: expressions by structure name.
        support: expressions for ROIs that stay in the CT outside the body.
        optimization: expressions for optimization structures, see `is_optimization`.
    """

    body: list[str]
    targets: dict[str, list[str]]
    structures: dict[str, list[str]]
    support: list[str]
    optimization: list[str] = field(default_factory=list)

    def assign(
        self,
        rois: Sequence[Roi],
        prescription_gy: Mapping[str, float],
        *,
        others: Collection[str] = (),
        derived: Collection[str] = (),
    ) -> dict[str, Match]:
        """Find the ROI of each structure, by exact names, then types, then loose names.

        Args:
            rois: ROIs of one structure set.
            prescription_gy: prescription of the protocol by target, Gy.
            others: further structures that the protocol names.
            derived: structures that are made from others; no ROI becomes one of these.

        Raises:
            ValueError: none of the targets, or two ROIs that match one structure equally well.
        """
        wanted = {BODY: _rounds(self.body, "EXTERNAL")}
        for name, dose_gy in prescription_gy.items():
            patterns = [_with_dose(pattern, dose_gy) for pattern in self.targets.get(name, [plain(name)])]
            wanted[name] = _rounds(patterns, "PTV" if len(prescription_gy) == 1 else None)
        for name in (*self.structures, *others):
            wanted.setdefault(name, _rounds(self.structures.get(name, [plain(name)]), None))
        wanted = {name: rounds for name, rounds in wanted.items() if name not in derived}
        found: dict[str, Match] = {}
        always = {BODY, *prescription_gy}
        for number in range(len(ROUNDS)):
            for name, rounds in wanted.items():
                missing = [target for target in prescription_gy if target not in found and target not in derived]
                if name in found or (number and name in prescription_gy and missing != [name]):
                    continue
                taken = {id(match.roi) for match in found.values()}
                free = [roi for roi in rois if id(roi) not in taken]
                match = self._find(name, rounds[number], number, free, name in always or name in others)
                found |= {} if match is None else {name: match}
        if not found.keys() & prescription_gy.keys() and not set(derived) & prescription_gy.keys():
            raise ValueError(self._missing(tuple(prescription_gy), rois))
        return {name: found[name] for name in wanted if name in found}

    def supports(self, rois: Sequence[Roi]) -> list[Roi]:
        """ROIs of couch, bolus and other supports."""
        return [roi for roi in rois if roi.interpreted_type in SUPPORT_TYPES or _fits(self.support, roi)]

    def steers(self, roi: Roi, loose: bool = False) -> bool:
        """Whether a ROI is an optimization structure."""
        known = [pattern for patterns in self.structures.values() for pattern in patterns if _exact(pattern)]
        return is_optimization(roi, self.optimization, known, loose)

    def _find(self, name: str, entries: Sequence[str], number: int, rois: Sequence[Roi], needed: bool) -> Match | None:
        """The ROI that matches the first matching entry of a round; None for several if it is not needed."""
        if number:
            rois = [roi for roi in rois if not self.steers(roi, loose=number == 2)]
        for entry in entries:
            kind = re.fullmatch(ROI_TYPE, entry)
            fitting = [roi for roi in rois if (roi.interpreted_type == kind[1] if kind else _fits([entry], roi))]
            if len(fitting) > 1 and (needed or number == 0):
                both = ", ".join(roi.shown for roi in fitting)
                raise ValueError(f"ROIs {both} all fit {name}: choose one in a --roi_names file")
            if len(fitting) == 1:
                return Match(fitting[0], f"type {kind[1]}" if kind else ROUNDS[number])
        return None

    def _missing(self, targets: tuple[str, ...], rois: Sequence[Roi]) -> str:
        there = ", ".join(roi.shown for roi in rois)
        like = [roi for roi in rois if roi.interpreted_type == "PTV" or "ptv" in plain(roi.name)]
        steering = [roi.shown for roi in like if self.steers(roi, loose=True)]
        hint = f" ({', '.join(steering)} may be for optimization)" if steering else ""
        return f"no ROI for {' or '.join(targets)} among {there}{hint}: name it in a --roi_names file"


def load_roi_names(path: Path | None = None) -> RoiNames:
    """Load the mapping of a YAML file, or the shipped one.

    Raises:
        ValueError: not YAML, sections other than `body`, `targets`, `structures`, `support`, `optimization` (optional),
            or an invalid regular expression.
    """
    shipped = resources.files("lightning_vmat.cases.dicom") / SHIPPED
    where = str(path or SHIPPED)
    values = read_mapping(path or shipped, where)
    try:
        if set(values) - {OPTIONAL} != set(SECTIONS):
            raise ValueError(f"expected the sections {', '.join(SECTIONS)} and optionally {OPTIONAL}")
        return _parse({OPTIONAL: read_mapping(shipped)[OPTIONAL], **values})
    except (AttributeError, TypeError, ValueError, re.error) as error:
        raise ValueError(f"{where}: not a mapping of ROI names ({' '.join(str(error).split())})") from error


def _parse(values: dict[str, Any]) -> RoiNames:
    return RoiNames(
        body=_patterns(values["body"]),
        targets={str(name): _patterns(patterns) for name, patterns in (values["targets"] or {}).items()},
        structures={str(name): _patterns(patterns) for name, patterns in (values["structures"] or {}).items()},
        support=_patterns(values["support"]),
        optimization=_patterns(values[OPTIONAL]),
    )


def plain(name: str) -> str:
    """A name in lower case, letters and digits only, without accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum() and not unicodedata.combining(letter))


def _patterns(values: object) -> list[str]:
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r}, expected a list of regular expressions")
    for value in values:
        re.compile(_with_dose(value, 60.0))
    return values


def _rounds(entries: Sequence[str], fallback: str | None) -> tuple[list[str], list[str], list[str]]:
    """The entries of each round: exact names, types, loose names.

    Args:
        entries: entries of the YAML file, in order of preference.
        fallback: type to use if the entries name none.
    """
    types = [at for at, entry in enumerate(entries) if re.fullmatch(ROI_TYPE, entry)]
    if types:
        named = [entry for entry in entries[types[0] :] if not re.fullmatch(ROI_TYPE, entry)]
        return list(entries[: types[0]]), [entries[at] for at in types], named
    exact = [entry for entry in entries if _exact(entry)]
    return exact, [f"<{fallback}>"] if fallback else [], [entry for entry in entries if not _exact(entry)]


def _exact(entry: str) -> bool:
    return not re.search(r"[.\w\])][*+]", entry) and not re.fullmatch(ROI_TYPE, entry)


def _with_dose(pattern: str, dose_gy: float) -> str:
    return pattern.replace("{gy}", re.escape(f"{dose_gy:g}".replace(".", ""))).replace("{cgy}", f"{100 * dose_gy:.0f}")


def _fits(patterns: Sequence[str], roi: Roi) -> bool:
    """Whether an expression matches the plain name or the full name; with a leading `_` the full name only."""
    names = (roi.name,) if roi.name.startswith("_") else (plain(roi.name), roi.name)
    return any(re.fullmatch(pattern, name) for pattern in patterns for name in names)
