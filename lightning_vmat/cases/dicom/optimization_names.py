"""Recognises optimization structures: rings, `zPTV`, `PTV-Rectum`. None of them is a target."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from lightning_vmat.cases.dicom.rtstruct import Roi

TYPES = ("CONTROL", "AVOIDANCE", "DOSE_REGION", "DOSE_MEASUREMENT")
VOLUMES = "ptv|ctv|gtv|itv|pzv|body|external|zielvolumen"
LESS = r"\s*[-\u2010-\u2015\u2212\\]\s*|\b(?:minus|sub|less|ohne|without|sans|sauf|sin|menos|wo)\b"  # "less"
SITES = (  # after a hyphen they name the site of a target
    r"\d+|c?gy|fx|prostat\w*|loge|bed|sv|svs|p|n|nodes?|nodal|ln|lk|pelvi\w*|high|mid|low|boost|sib|primary|prim|"
    r"tumou?r|total|plan|phase|ph|final|new|neu|[a-d]|v"
)


def words(name: str) -> str:
    """Split a name into lower-case words: `zPTV_opt` gives `z ptv opt`, `NSRing3mm` gives `ns ring 3 mm`."""
    text = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    text = re.sub(rf"(?i)(?<![a-z])([zx]|ns|opt|help)?({VOLUMES})", r" \1 \2 ", text)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", text)
    return " ".join(re.sub(r"[^\w]|_", " ", text).casefold().split())


def is_optimization(roi: Roi, patterns: Sequence[str], structures: Sequence[str], loose: bool) -> bool:
    """Whether a ROI is an optimization structure, by its type or name.

    Args:
        roi: the ROI.
        patterns: regular expressions for any part of `words`.
        structures: regular expressions for plain names of structures; one less another is an optimization structure.
        loose: the ROI matched by a loose name only, so that the name of a second structure counts against it.
    """
    if roi.interpreted_type in TYPES or roi.name.lstrip().startswith("_"):
        return True
    text = words(roi.name)
    if any(re.search(pattern, text) for pattern in patterns):
        return True
    parts = [part for part in map(words, re.split(rf"(?i){LESS}", roi.name.replace("_", " "))) if part]
    if sum(_names_structure(part.replace(" ", ""), structures) for part in parts) > 1:
        return True
    beside = [word for word in text.split() if not re.fullmatch(VOLUMES, word)]
    if len(parts) > 1 and any(not re.fullmatch(SITES, word) or re.fullmatch(r"0\d", word) for word in beside):
        return True  # a target less a structure or some millimetres: PTV-05 in TG-263
    return loose and any(_names_structure(word, structures) for word in (*beside, "".join(beside)))


def _names_structure(plain: str, structures: Sequence[str]) -> bool:
    return bool(re.match(VOLUMES, plain)) or any(re.fullmatch(pattern, plain) for pattern in structures)
