"""Links between the DICOM objects of one patient: study, frame of reference, structure set, patient position."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import yaml

from lightning_vmat.cases.dicom.files import shown_word
from lightning_vmat.cases.dicom.valid_values import valid_or_blank
from lightning_vmat.files.yaml_file import read_mapping

LINK_FILE = "dicom.yaml"
FLIPPED_ENDS = {"HFS": False, "HFP": False, "FFS": True, "FFP": True}
PRONE = {"HFS": False, "HFP": True, "FFS": False, "FFP": True}
IDENTIFIERS = {
    "patient_name": "PatientName",
    "patient_id": "PatientID",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "accession_number": "AccessionNumber",
    "referring_physician": "ReferringPhysicianName",
}
"""Field that identifies the patient -> DICOM attribute."""
UIDS = ("study_uid", "frame_of_reference_uid", "structure_set_uid")
UID_LETTERS = r"[0-9.]{0,64}"


@dataclass(frozen=True)
class PatientLink:
    """Attributes that RTPLAN and RTDOSE share with the CT and the structure set.

    Args:
        study_uid: Study Instance UID.
        frame_of_reference_uid: Frame of Reference UID of the CT and everything on it.
        structure_set_uid: SOP Instance UID of the RTSTRUCT.
        patient_position: `HFS`, `HFP`, `FFS` or `FFP`.
        patient_check: check digits of the Patient ID, see `one_patient.patient_check`; empty if unknown.
        patient_name: this and all following fields identify the patient; empty if not wanted. A value that breaks its
            value representation becomes empty.
        patient_id: Patient ID.
        birth_date: Patient's Birth Date.
        sex: Patient's Sex.
        study_id: Study ID.
        study_date: Study Date.
        study_time: Study Time.
        accession_number: Accession Number.
        referring_physician: Referring Physician's Name.

    Raises:
        ValueError: another patient position, or an invalid UID.
    """

    study_uid: str
    frame_of_reference_uid: str
    structure_set_uid: str
    patient_position: str = "HFS"
    patient_check: str = ""
    patient_name: str = ""
    patient_id: str = ""
    birth_date: str = ""
    sex: str = ""
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    accession_number: str = ""
    referring_physician: str = ""

    def __post_init__(self) -> None:
        if self.patient_position not in PRONE:
            position = shown_word(self.patient_position)
            raise ValueError(f"patient position {position!r}: expected one of {', '.join(PRONE)}")
        for name in UIDS:
            if not re.fullmatch(UID_LETTERS, getattr(self, name)):
                raise ValueError(f"{name}: invalid UID, expected digits and dots")
        for name, keyword in IDENTIFIERS.items():
            object.__setattr__(self, name, valid_or_blank(keyword, getattr(self, name)))

    def without_identifiers(self) -> PatientLink:
        """The same links without the fields that identify the patient."""
        return replace(self, **dict.fromkeys(IDENTIFIERS, ""))


def lying_supine(patient_position: str, gantry_deg: float, couch_deg: float) -> tuple[float, float]:
    """Gantry and couch angle that treat a head-first supine patient from the same side; its own inverse.

    Cases contain head-first supine patients only. Turning a patient end for end is half a turn of the couch; turning
    the patient over is half a turn of the gantry, after which the couch turns the other way about the patient.

    Args:
        patient_position: true patient position, such as FFS.
        gantry_deg: gantry angle.
        couch_deg: patient support angle.

    Returns:
        Gantry and couch angle, both in [0, 360).
    """
    if FLIPPED_ENDS[patient_position]:
        couch_deg += 180.0
    if PRONE[patient_position]:
        gantry_deg, couch_deg = gantry_deg + 180.0, -couch_deg
    return gantry_deg % 360.0, couch_deg % 360.0


def link_text(link: PatientLink, roi_names: dict[str, str]) -> str:
    """The content of `dicom.yaml`: the links, and the ROI of each structure."""
    return yaml.safe_dump({**asdict(link), "roi_names": roi_names}, sort_keys=False)


def read_link(folder: Path) -> PatientLink | None:
    """Read the links of a case from DICOM; None for other cases.

    Raises:
        ValueError: an invalid `dicom.yaml`.
    """
    path = Path(folder) / LINK_FILE
    if not path.is_file():
        return None
    values = read_mapping(path)
    try:
        names = {field.name for field in fields(PatientLink)}
        return PatientLink(**{name: str(value) for name, value in values.items() if name in names})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected links to DICOM objects ({' '.join(str(error).split())})") from error
