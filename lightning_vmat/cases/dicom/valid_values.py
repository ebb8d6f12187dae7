"""Checks values of patient and study attributes; values that DICOM does not allow are neither shown nor written."""

from __future__ import annotations

from datetime import datetime

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.valuerep import validate_value

from lightning_vmat.cases.dicom.quiet import quiet_pydicom

SEXES = ("M", "F", "O")
DATE_FORMAT = "%Y%m%d"


def valid_or_blank(keyword: str, value: object) -> str:
    """A value as text if its value representation allows it, else an empty text.

    Real files contain dates such as `1950/02/03` and free text for the sex. Copied into a new object they would make it
    invalid, and pydicom's warnings about them quote them.

    Args:
        keyword: keyword of the attribute.
        value: value as read, not a list.
    """
    text = "" if value is None or isinstance(value, MultiValue) else str(value).strip()
    if not text.isprintable() or "\\" in text:
        return ""
    representation = dictionary_VR(keyword)
    try:
        with quiet_pydicom():
            validate_value(representation, text, config.RAISE)
        if text and representation == "DA":
            datetime.strptime(text, DATE_FORMAT)
    except ValueError:
        return ""
    return "" if keyword == "PatientSex" and text not in SEXES else text
