"""Writes a dose as DICOM RTDOSE."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import RTDoseStorage, RTPlanStorage
from torch import Tensor

from lightning_vmat.cases.dicom.dicom_references import PatientLink
from lightning_vmat.export.dicom_objects import RESEARCH_TEXT, decimals, new_object, reference, save
from lightning_vmat.plan.volume import VolumeGrid

Bits = Literal[16, 32]


def write_rtdose(
    path: Path, dose_gy: Float[Tensor, "z y x"], grid: VolumeGrid, link: PatientLink, plan_uid: str, bits: Bits = 16
) -> None:
    """Write the dose of the whole course, scaled so that its maximum is the largest pixel value.

    Args:
        path: path of the DICOM file.
        dose_gy: dose of all fractions, Gy.
        grid: grid of the dose.
        link: DICOM objects of the patient.
        plan_uid: SOP Instance UID of the RTPLAN.
        bits: bits of a pixel; 16 bits round the dose by at most 1/131000 of the maximum.

    Raises:
        ValueError: a dose that is negative or not finite.
    """
    dose = dose_gy.detach().cpu().double().numpy()
    if not np.isfinite(dose).all() or dose.min() < 0:
        raise ValueError(f"{path}: NaN, infinite or negative dose, expected Gy")
    scaling = f"{max(float(dose.max()), 1e-6) / (2**bits - 1):.9e}"  # DS: at most 16 characters
    stored = np.rint(dose / float(scaling)).clip(0, 2**bits - 1)
    data = new_object(RTDoseStorage, "RTDOSE", link)
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.DoseComment, data.TissueHeterogeneityCorrection = RESEARCH_TEXT, "IMAGE"
    data.DoseGridScaling = scaling
    data.ReferencedRTPlanSequence = Sequence([reference(RTPlanStorage, plan_uid)])
    data.ContentDate, data.ContentTime = data.InstanceCreationDate, data.InstanceCreationTime
    data.NumberOfFrames, data.Rows, data.Columns = dose.shape
    data.FrameIncrementPointer = Tag("GridFrameOffsetVector")
    data.GridFrameOffsetVector = decimals((i * grid.spacing_mm[2] for i in range(dose.shape[0])), 4)
    data.ImagePositionPatient = decimals(grid.origin_mm, 4)
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = decimals((grid.spacing_mm[1], grid.spacing_mm[0]), 6)
    data.SliceThickness = decimals(grid.spacing_mm[2:], 4)[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    data.PixelData = stored.astype(f"<u{bits // 8}").tobytes()
    data["PixelData"].VR = "OW"
    save(data, path)
