"""Seeded damage to DICOM files: bytes flipped, elements dropped, sequences emptied, values swapped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

HEADER_BYTES = 2500  # most flips hit where attributes are; pixels and contours fill the rest
Rng = np.random.Generator


def mutated(raw: bytes, rng: Rng) -> tuple[str, bytes]:
    """What was done to a file, and the file after it; see `MUTATIONS`."""
    kind = str(rng.choice(list(MUTATIONS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind, MUTATIONS[kind](raw, rng)


def changed_keywords(raw: bytes, other: bytes) -> set[str]:
    """Keywords of all elements that are in one file only, or differ."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, two = _leaves(raw), _leaves(other)
    return {str(path[-1]) for path in one.keys() | two.keys() if one.get(path) != two.get(path)}


def _leaves(raw: bytes) -> dict[tuple[str | int, ...], str]:
    """Value of each element that is no sequence, by its path."""
    return dict(_walk(dcmread(BytesIO(raw), force=True), ()))


def _walk(data: Dataset, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for tag in list(data.keys()):
        try:
            element = data[tag]
            name = element.keyword or str(tag)
            if element.VR == "SQ":
                yield (*path, name), f"{len(element.value)} items"
                for index, item in enumerate(element.value):
                    yield from _walk(item, (*path, name, index))
            else:
                yield (*path, name), str(element.value)
        except Exception:  # pydicom raises a dozen kinds on what is broken
            yield (*path, str(tag)), "unreadable"


def _flip(raw: bytes, rng: Rng) -> bytes:
    """One to three bytes become others."""
    changed = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(132, min(len(raw), HEADER_BYTES) if rng.random() < 0.8 else len(raw))
        changed[place] ^= rng.integers(1, 256)
    return bytes(changed)


def _edit(change: Callable[[list[tuple[Dataset, int]], Rng], None]) -> Callable[[bytes, Rng], bytes]:
    """A mutation of the elements of a data set."""

    def mutation(raw: bytes, rng: Rng) -> bytes:
        data = dcmread(BytesIO(raw))
        change(list(_elements(data)), rng)
        out = BytesIO()
        data.save_as(out)
        return out.getvalue()

    return mutation


def _elements(data: Dataset) -> Iterator[tuple[Dataset, int]]:
    """Each element as its data set and tag; those deep inside are as likely to be drawn as those above."""
    for tag in list(data.keys()):
        yield data, tag
        if data[tag].VR == "SQ":
            for item in data[tag].value:
                yield from _elements(item)


def _drop(elements: list[tuple[Dataset, int]], rng: Rng) -> None:
    data, tag = _by_keyword(elements, rng)
    del data[tag]


def _empty(elements: list[tuple[Dataset, int]], rng: Rng) -> None:
    """A sequence without items, or one without its last."""
    sequences = [(data, tag) for data, tag in elements if data[tag].VR == "SQ" and len(data[tag].value)]
    if not sequences:
        return _drop(elements, rng)
    data, tag = _by_keyword(sequences, rng)
    data[tag].value = [] if rng.random() < 0.5 else list(data[tag].value)[:-1]


def _swap(elements: list[tuple[Dataset, int]], rng: Rng) -> None:
    """Two elements of one value representation change values."""
    plain = [(data, tag) for data, tag in elements if data[tag].VR not in ("SQ", "OW", "OB")]
    one, first = _by_keyword(plain, rng)
    same = [(data, tag) for data, tag in plain if data[tag].VR == one[first].VR]
    other, second = _by_keyword(same, rng)
    one[first].value, other[second].value = other[second].value, one[first].value


def _reverse(elements: list[tuple[Dataset, int]], rng: Rng) -> None:
    """The numbers of one element in reverse order."""
    several = [(data, tag) for data, tag in elements if isinstance(data[tag].value, MultiValue)]
    if not several:
        return _swap(elements, rng)
    data, tag = _by_keyword(several, rng)
    data[tag].value = list(data[tag].value)[::-1]


def _by_keyword(elements: list[tuple[Dataset, int]], rng: Rng) -> tuple[Dataset, int]:
    """One element: first its keyword is drawn, as leaf positions and contours are by far the most, then which."""
    by_keyword: dict[int, list[tuple[Dataset, int]]] = {}
    for data, tag in elements:
        by_keyword.setdefault(int(tag), []).append((data, tag))
    chosen = by_keyword[int(rng.choice(sorted(by_keyword)))]
    return chosen[int(rng.integers(len(chosen)))]


MUTATIONS: dict[str, Callable[[bytes, Rng], bytes]] = {
    "bytes flipped": _flip,
    "element dropped": _edit(_drop),
    "sequence emptied": _edit(_empty),
    "values swapped": _edit(_swap),
    "numbers reversed": _edit(_reverse),
}
