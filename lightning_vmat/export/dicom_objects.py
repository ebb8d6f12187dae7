"""Common attributes of all written DICOM objects."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ImplicitVRLittleEndian, generate_uid

from lightning_vmat import __version__
from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.cases.dicom.quiet import quiet_pydicom
from lightning_vmat.files.atomic import atomic_file

SOFTWARE = "lightning_vmat"
IMPLEMENTATION_UID = UID("2.25.211984163048176193512389771340921650441")
RESEARCH_LABEL = "RESEARCH ONLY"  # SH: at most 16 characters
RESEARCH_TEXT = "For research use only. Not for treatment."


def new_uid() -> UID:
    """A UID from a random UUID, which needs no registered root."""
    return generate_uid(prefix=None)


def new_object(sop_class: UID, modality: str, link: PatientLink, *, series_uid: str = "") -> Dataset:
    """A dataset with patient, study, series, equipment and SOP attributes filled in.

    Args:
        sop_class: SOP Class UID.
        modality: `CT`, `RTSTRUCT`, `RTPLAN` or `RTDOSE`.
        link: patient, study and frame of reference.
        series_uid: Series Instance UID; a new one if empty.
    """
    with quiet_pydicom():  # it warns of UIDs with leading zeros, which must stay as in the CT
        return _filled_in(sop_class, modality, link, series_uid)


def _filled_in(sop_class: UID, modality: str, link: PatientLink, series_uid: str) -> Dataset:
    now = datetime.now(UTC)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = sop_class, new_uid()
    data.InstanceCreationDate, data.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.Modality = modality
    data.PatientName, data.PatientID = link.patient_name, link.patient_id
    data.PatientBirthDate, data.PatientSex = link.birth_date, link.sex
    data.StudyInstanceUID, data.StudyID = link.study_uid, link.study_id
    data.StudyDate, data.StudyTime = link.study_date, link.study_time
    data.AccessionNumber, data.ReferringPhysicianName = link.accession_number, link.referring_physician
    data.SeriesInstanceUID = series_uid or new_uid()
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.SeriesDescription = RESEARCH_TEXT
    data.OperatorsName = ""
    data.Manufacturer = data.ManufacturerModelName = SOFTWARE
    data.SoftwareVersions = __version__
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = link.frame_of_reference_uid, ""
    return data


def reference(sop_class: str, uid: str) -> Dataset:
    """A sequence item that refers to another object."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def decimals(values: Iterable[float], places: int) -> list[str]:
    """Decimal strings of at most 16 characters without trailing zeros."""
    return [decimal(value, places) for value in values]


def decimal(value: float, places: int) -> str:
    """A number as DICOM decimal text with at most so many decimal places, without trailing zeros."""
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def save(data: Dataset, path: Path) -> None:
    """Write a DICOM file, whole or not at all."""
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    data.file_meta.ImplementationVersionName = "LIGHTNING_VMAT"
    with atomic_file(path) as draft, quiet_pydicom():
        data.save_as(draft, enforce_file_format=True)
