"""Densities assigned to ROIs (ROI Physical Properties), such as an artefact set to water or a virtual bolus."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.files import shown

USED = "REL_ELEC_DENSITY"  # relative to water
REFUSED = "ELEM_FRACTION"
MAX_DENSITY = 7.0  # relative electron density of the largest CT number that a case may hold


def assigned_density(observations: Sequence[Dataset], where: str) -> float | None:
    """The relative electron density assigned to a ROI; None if the CT numbers apply.

    Dose is computed from electron density alone. Other properties (effective atomic number, relative mass
    density, ...) change nothing beside it. Without it the electron density would be a guess, so they are refused.

    Args:
        observations: items of the RT ROI Observations Sequence of the ROI.
        where: beginning of messages.

    Raises:
        ValueError: an elemental composition, properties without relative electron density, or a value out of range.
    """
    densities, others = [], []
    for observation in observations:
        for item in observation.get("ROIPhysicalPropertiesSequence") or []:
            kind = str(item.get("ROIPhysicalProperty") or "").upper().strip()
            if kind == REFUSED or item.get("ROIElementalCompositionSequence"):
                raise ValueError(f"{where}: elemental composition assigned, expected {USED} or CT numbers")
            if kind == USED:
                densities.append(_value(item, where))
            elif kind:
                others.append(kind)
    if not densities and others:
        raise ValueError(f"{where}: {shown(others[0], 32)} assigned without {USED}, expected both")
    if len(set(densities)) > 1:
        raise ValueError(f"{where}: {USED} of {densities[0]:g} and of {densities[1]:g}, expected one")
    return densities[0] if densities else None


def _value(item: Dataset, where: str) -> float:
    text = item.get("ROIPhysicalPropertyValue")
    value = float(text) if text not in (None, "") else math.nan
    if not 0 <= value <= MAX_DENSITY:
        raise ValueError(f"{where}: {USED} of {value:g}, expected 0 to {MAX_DENSITY:g}")
    return value
