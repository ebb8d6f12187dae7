"""Writes the CT of a case as a DICOM series, one file for each slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.export.dicom_objects import decimals, new_object, new_uid, save
from lightning_vmat.plan.case import Case


def write_ct_series(folder: Path, case: Case, link: PatientLink) -> tuple[str, list[str]]:
    """Write `CT_0001.dcm`, ... from inferior to superior.

    Args:
        folder: folder to write to.
        case: case with the CT.
        link: DICOM objects of the patient.

    Returns:
        Series Instance UID, and the SOP Instance UIDs of the slices.
    """
    series_uid, slices = new_uid(), []
    grid = case.grid
    stored = np.rint(case.hu.numpy()).astype("<i2")
    for number, pixels in enumerate(stored, start=1):
        data = new_object(CTImageStorage, "CT", link, series_uid=series_uid)
        data.SeriesDescription, data.BodyPartExamined = "Phantom", "PELVIS"
        data.ImageType, data.PatientPosition = ["DERIVED", "SECONDARY", "AXIAL"], link.patient_position
        data.InstanceNumber, data.AcquisitionNumber, data.KVP = number, 1, "120"
        data.ContentDate, data.ContentTime = data.InstanceCreationDate, data.InstanceCreationTime
        x, y, z = grid.origin_mm
        position = (x, y, z + (number - 1) * grid.spacing_mm[2])
        data.ImagePositionPatient, data.ImageOrientationPatient = decimals(position, 4), [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = decimals((grid.spacing_mm[1], grid.spacing_mm[0]), 6)
        data.SliceThickness, data.SliceLocation = decimals((grid.spacing_mm[2], position[2]), 4)
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = pixels.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "0", "1", "HU"
        data.WindowCenter, data.WindowWidth = "40", "400"
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW"
        save(data, folder / f"CT_{number:04d}.dcm")
        slices.append(str(data.SOPInstanceUID))
    return series_uid, slices
