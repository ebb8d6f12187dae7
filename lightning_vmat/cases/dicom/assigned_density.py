"""Densities that a planner assigned to ROIs (ROI Physical Properties): an artefact set to water, a virtual bolus."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydicom.dataset import Dataset

from lightning_vmat.cases.dicom.files import shown

USED = "REL_ELEC_DENSITY"  # relative to water
REFUSED = "ELEM_FRACTION"
MAX_DENSITY = 7.0  # of the densest CT numbers that a case may hold


def assigned_density(observations: Sequence[Dataset], where: str) -> float | None:
    """The relative electron density assigned to a ROI; None where the CT's counts.

    Dose is computed from electron density alone. Other properties beside it (effective atomic number, relative mass
    density, ...) change nothing; without it they would have to be guessed from, so they are refused.

    Args:
        observations: of the ROI.
        where: begins the message.

    Raises:
        ValueError: an elemental composition, properties without relative electron density, or a value that is none.
    """
    densities, others = [], []
    for observation in observations:
        for item in observation.get("ROIPhysicalPropertiesSequence") or []:
            kind = str(item.get("ROIPhysicalProperty") or "").upper().strip()
            if kind == REFUSED or item.get("ROIElementalCompositionSequence"):
                raise ValueError(f"{where}: elemental composition assigned, expected {USED} or the CT's own numbers")
            if kind == USED:
                densities.append(_value(item, where))
            elif kind:
                others.append(kind)
    if not densities and others:
        raise ValueError(f"{where}: {shown(others[0], 32)} assigned without {USED}, expected the latter too")
    if len(set(densities)) > 1:
        raise ValueError(f"{where}: {USED} of {densities[0]:g} and of {densities[1]:g}, expected one")
    return densities[0] if densities else None


def _value(item: Dataset, where: str) -> float:
    text = item.get("ROIPhysicalPropertyValue")
    value = float(text) if text not in (None, "") else math.nan
    if not 0 <= value <= MAX_DENSITY:
        raise ValueError(f"{where}: {USED} of {value:g}, expected 0 to {MAX_DENSITY:g}")
    return value
