"""From the names of ROIs to the structures of a protocol, by a documented YAML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from lightning_vmat.data.dicom.files import shown
from lightning_vmat.data.dicom.rtstruct import Roi
from lightning_vmat.plan.case import BODY

SHIPPED = "roi_names.yaml"
SECTIONS = ("body", "targets", "structures", "support")


@dataclass(frozen=True)
class RoiNames:
    """Regular expressions for the plain names of ROIs, in order of preference.

    Args:
        body: for the outline.
        targets: by target name.
        structures: by structure name.
        support: for what stays in the CT outside the body.
    """

    body: list[str]
    targets: dict[str, list[str]]
    structures: dict[str, list[str]]
    support: list[str]

    def assign(self, rois: Sequence[Roi], prescription_gy: Mapping[str, float]) -> dict[str, Roi]:
        """The ROI of each structure that is there.

        Args:
            rois: of one structure set.
            prescription_gy: of the protocol, by target.

        Raises:
            ValueError: no outline or none of the targets, or two ROIs that fit one structure equally well.
        """
        found = {BODY: _find(BODY, self.body, rois) or _of_type("EXTERNAL", rois)}
        for name, dose_gy in prescription_gy.items():
            patterns = [_with_dose(pattern, dose_gy) for pattern in self.targets.get(name, [name.lower()])]
            found[name] = _find(name, patterns, rois)
        if len(prescription_gy) == 1 and found[next(iter(prescription_gy))] is None:
            found[next(iter(prescription_gy))] = _of_type("PTV", rois)
        for wanted in ((BODY,), tuple(prescription_gy)):
            if not any(found[name] for name in wanted):
                there = ", ".join(repr(shown(roi.name, 64)) for roi in rois)
                raise ValueError(f"no ROI for {' or '.join(wanted)} among {there}: name it in a --roi_names file")
        for name, patterns in self.structures.items():
            found.setdefault(name, _find(name, patterns, rois))
        return {name: roi for name, roi in found.items() if roi is not None}

    def supports(self, rois: Sequence[Roi]) -> list[Roi]:
        """Couch, bolus and the like."""
        return [roi for roi in rois if roi.interpreted_type in ("SUPPORT", "BOLUS") or _fits(self.support, roi)]


def load_roi_names(path: Path | None = None) -> RoiNames:
    """The mapping of a YAML file, or the shipped one.

    Raises:
        ValueError: not YAML, other sections than `body`, `targets`, `structures`, `support`, or a broken expression.
    """
    shipped = resources.files("lightning_vmat.data.dicom") / SHIPPED
    where = path or SHIPPED
    try:
        values = yaml.safe_load((path or shipped).read_text(encoding="utf-8"))
        if not isinstance(values, dict) or set(values) != set(SECTIONS):
            raise ValueError(f"expected the sections {', '.join(SECTIONS)}")
        names = RoiNames(
            body=_patterns(values["body"]),
            targets={str(name): _patterns(patterns) for name, patterns in (values["targets"] or {}).items()},
            structures={str(name): _patterns(patterns) for name, patterns in (values["structures"] or {}).items()},
            support=_patterns(values["support"]),
        )
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError, re.error) as error:
        raise ValueError(f"{where}: not a mapping of ROI names ({' '.join(str(error).split())})") from error
    return names


def plain(name: str) -> str:
    """Letters and digits only, in lower case and without accents."""
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


def _with_dose(pattern: str, dose_gy: float) -> str:
    return pattern.replace("{gy}", re.escape(f"{dose_gy:g}".replace(".", ""))).replace("{cgy}", f"{100 * dose_gy:.0f}")


def _fits(patterns: Sequence[str], roi: Roi) -> bool:
    return any(re.fullmatch(pattern, plain(roi.name)) for pattern in patterns)


def _find(name: str, patterns: Sequence[str], rois: Sequence[Roi]) -> Roi | None:
    """The ROI that the first fitting expression fits."""
    for pattern in patterns:
        fitting = [roi for roi in rois if _fits([pattern], roi)]
        if len(fitting) > 1:
            both = ", ".join(repr(shown(roi.name, 64)) for roi in fitting)
            raise ValueError(f"ROIs {both} all fit {name}: choose one in a --roi_names file")
        if fitting:
            return fitting[0]
    return None


def _of_type(interpreted_type: str, rois: Sequence[Roi]) -> Roi | None:
    """The only ROI of a type."""
    fitting = [roi for roi in rois if roi.interpreted_type == interpreted_type]
    return fitting[0] if len(fitting) == 1 else None
