"""Finds and reads DICOM files in a folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
)

from lightning_vmat.cases.dicom.quiet import quiet_pydicom

RESCALE = ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence")
HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImageType",
    "PatientID",
    "PatientPosition",
    *RESCALE,
]
MODALITIES = ("CT", "RTSTRUCT", "RTPLAN", "RTDOSE")
MODALITY_OF_CLASS = {
    CTImageStorage: "CT",
    RTStructureSetStorage: "RTSTRUCT",
    RTPlanStorage: "RTPLAN",
    RTIonPlanStorage: "RTPLAN",
    RTDoseStorage: "RTDOSE",
}
FIRST_GROUPS = {b"\x02\x00": "little", b"\x08\x00": "little", b"\x00\x08": "big"}  # of files without preamble
LAST_FIRST_ELEMENT = 0x20  # a dataset begins with one of the first elements of its group
CODE_STRING = r"[A-Z0-9_ ]{1,16}"
MAGIC, MAGIC_AT = b"DICM", 128
UNCOMPRESSED: dict[tuple[bool | None, bool | None], UID] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""(implicit value representation, little endian) -> transfer syntax."""


@dataclass(frozen=True)
class DicomFile:
    """A file, and the attributes of its header by which it is chosen.

    Args:
        path: path of the file.
        modality: `CT`, `RTSTRUCT`, `RTPLAN` or `RTDOSE`.
        uid: SOP Instance UID.
        series_uid: Series Instance UID.
        frame_of_reference_uid: Frame of Reference UID; empty if there is none.
        is_localizer: whether it is a scout view.
        patient_id: Patient ID, for comparison only, never shown; empty if there is none.
        patient_position: `HFS`, ...; empty if there is none.
        rescale: values of the attributes that convert pixels to CT numbers.
    """

    path: Path
    modality: str
    uid: str
    series_uid: str
    frame_of_reference_uid: str
    is_localizer: bool
    patient_id: str = field(default="", repr=False)
    patient_position: str = ""
    rescale: tuple[str, ...] = ()


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn any error of a broken file into one line that names it, and silence pydicom's warnings.

    pydicom raises many kinds of errors on broken files.
    """
    try:
        with quiet_pydicom():
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
    """Prefix our own errors about a file's content with its path."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error


def shown(value: object, most: int = 16) -> str:
    """The beginning of a value, for messages. In a broken file any value may contain the patient's identity."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(value))
    return text if len(text) <= most else f"{text[:most]}..."


def shown_word(value: object) -> str:
    """A code string, for messages. Anything else might be a name and is not shown."""
    text = str(value).strip()
    return text if re.fullmatch(CODE_STRING, text) else "of another kind" if text else "empty"


def read_dataset(path: Path, **options: Any) -> Dataset:
    """Read a DICOM file; if it does not state its transfer syntax, the syntax is detected.

    Planning systems such as Monaco and XiO write files without preamble or meta information.

    Raises:
        ValueError: a file that is missing, truncated or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected DICOM")
    with clear_errors(path):
        data = pydicom.dcmread(path, force=True, **options)
        if not data.file_meta.get("TransferSyntaxUID"):
            implicit, little = data.original_encoding
            data.file_meta.TransferSyntaxUID = UNCOMPRESSED.get((implicit, little), ExplicitVRLittleEndian)
        return data


def check_decoder(data: Dataset, path: Path) -> None:
    """Raise a ValueError if the pixels are compressed and no installed package decodes them."""
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
    """Find CT slices, structure sets, plans and doses anywhere below a folder, or in a file; others are skipped.

    Raises:
        ValueError: a DICOM file that is broken.
    """
    paths = sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else [Path(folder)]
    found = (_header(path) for path in paths if looks_like_dicom(path))
    return [header for header in found if header is not None]


def looks_like_dicom(path: Path) -> bool:
    """Whether the first bytes of a file are those of DICOM, with or without preamble."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(MAGIC_AT + len(MAGIC))
    if start[MAGIC_AT:] == MAGIC:
        return True
    order = FIRST_GROUPS.get(start[:2])
    if order is None or len(start) < MAGIC_AT + len(MAGIC):
        return False
    return int.from_bytes(start[2:4], "big" if order == "big" else "little") <= LAST_FIRST_ELEMENT


def _header(path: Path) -> DicomFile | None:
    data = read_dataset(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
    with clear_errors(path):
        modality = str(data.get("Modality") or "")
        _check_class(data, modality, path)
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
            patient_id=str(data.get("PatientID") or "").strip(),
            patient_position=str(data.get("PatientPosition") or ""),
            rescale=tuple(keyword for keyword in RESCALE if data.get(keyword) not in (None, "")),
        )


def _check_class(data: Dataset, modality: str, path: Path) -> None:
    """Raise if the modality contradicts the SOP class, so that a broken file is not skipped silently."""
    classes = [uid for uid in (data.file_meta.get("MediaStorageSOPClassUID"), data.get("SOPClassUID")) if uid]
    for expected in (MODALITY_OF_CLASS.get(uid, modality) for uid in classes):
        if modality != expected:
            raise ValueError(f"{path}: modality {shown_word(modality)}, expected {expected} by its SOP Class UID")
    is_dicom = len(data.file_meta) > 1 or data.get("SOPInstanceUID")  # one element may be added by our own detection
    if not modality and not classes and is_dicom:
        raise ValueError(f"{path}: neither modality nor SOP Class UID, expected a whole DICOM file")


def only_one(files: list[DicomFile], modality: str, folder: Path) -> DicomFile | None:
    """The only file of a modality, or None. Copies of one object count once.

    Raises:
        ValueError: several different files.
    """
    chosen = list({file.uid: file for file in files if file.modality == modality}.values())
    if len(chosen) > 1:
        names = ", ".join(str(file.path.relative_to(folder)) for file in chosen[:5])
        raise ValueError(f"{folder}: {len(chosen)} {modality} files ({names}), expected one; move the others away")
    return chosen[0] if chosen else None
