"""What is in a folder of DICOM files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

HEADER_TAGS = ["SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "ImageType"]
MODALITIES = ("CT", "RTSTRUCT", "RTPLAN", "RTDOSE")
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # how a file without the preamble begins
MAGIC, MAGIC_AT = b"DICM", 128


@dataclass(frozen=True)
class DicomFile:
    """A file, and what its header says that is needed to choose it.

    Args:
        path: where it is.
        modality: `CT`, `RTSTRUCT`, `RTPLAN` or `RTDOSE`.
        uid: SOP Instance UID.
        series_uid: Series Instance UID.
        frame_of_reference_uid: empty where there is none.
        is_localizer: whether it is a scout view.
    """

    path: Path
    modality: str
    uid: str
    series_uid: str
    frame_of_reference_uid: str
    is_localizer: bool


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a hostile file becomes one line that names it, and pydicom's warnings stay silent.

    pydicom raises a dozen kinds of errors on broken files, and its warnings quote values, which may be names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) and text.startswith(str(path)):
            raise
        if not isinstance(error, AttributeError):  # whose quotes hold a keyword, no value
            text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text)
        raise ValueError(f"{path}: not readable as DICOM ({type(error).__name__}: {shown(text, 160)})") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Our own errors about what a file holds come out with its path."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error


def shown(value: object, most: int = 16) -> str:
    """The beginning of a value as it may stand in a message: a broken length can make any value hold the patient's."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= most else f"{text[:most]}..."


def read_dataset(path: Path, **options: Any) -> Dataset:
    """A DICOM file.

    Raises:
        ValueError: a file that is missing, truncated or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected DICOM")
    with clear_errors(path):
        return pydicom.dcmread(path, force=True, **options)


def check_decoder(data: Dataset, path: Path) -> None:
    """Raise a ValueError where pixels are compressed and nothing installed reads them."""
    syntax = getattr(data, "file_meta", Dataset()).get("TransferSyntaxUID")
    if syntax is None or not syntax.is_transfer_syntax or not syntax.is_encapsulated:
        return
    try:
        readable = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise ValueError(f"{path}: compressed as {syntax.name}, expected still images") from error
    if not readable:
        package = "pylibjpeg[openjpeg]" if "High-Throughput" in syntax.name else "lightning-vmat[dicom]"
        raise ValueError(f"{path}: compressed as {syntax.name}, which needs a decoder: pip install '{package}'")


def find_files(folder: Path) -> list[DicomFile]:
    """CT slices, structure sets, plans and doses anywhere below a folder; other files are passed over.

    Raises:
        ValueError: a DICOM file that is broken.
    """
    found = (_header(path) for path in sorted(Path(folder).rglob("*")) if looks_like_dicom(path))
    return [header for header in found if header is not None]


def looks_like_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do, with or without preamble."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(MAGIC_AT + len(MAGIC))
    return start[MAGIC_AT:] == MAGIC or (start[:2] in FIRST_GROUPS and len(start) == MAGIC_AT + len(MAGIC))


def _header(path: Path) -> DicomFile | None:
    data = read_dataset(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
    with clear_errors(path):
        modality = str(data.get("Modality", ""))
        if modality not in MODALITIES:
            return None
        if not data.get("SOPInstanceUID"):
            raise ValueError(f"{path}: {modality} without SOP Instance UID, expected a whole DICOM file")
        return DicomFile(
            path=path,
            modality=modality,
            uid=str(data.SOPInstanceUID),
            series_uid=str(data.get("SeriesInstanceUID", "")),
            frame_of_reference_uid=str(data.get("FrameOfReferenceUID", "")),
            is_localizer="LOCALIZER" in (data.get("ImageType") or ()),
        )


def only_one(files: list[DicomFile], modality: str, folder: Path) -> DicomFile | None:
    """The file of a modality, or None; copies of one object count once.

    Raises:
        ValueError: several different ones.
    """
    chosen = list({file.uid: file for file in files if file.modality == modality}.values())
    if len(chosen) > 1:
        names = ", ".join(str(file.path.relative_to(folder)) for file in chosen[:5])
        raise ValueError(f"{folder}: {len(chosen)} {modality} files ({names}), expected one; move the others away")
    return chosen[0] if chosen else None
