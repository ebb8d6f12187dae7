"""Summary figures of a target's dose, relative to its prescription."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_vmat.metrics.conformity import homogeneity_index
from lightning_vmat.metrics.dvh import Dvh

TARGET_VALUES = ("target_d95", "target_d98", "target_hi")


def target_values(dvhs: Mapping[str, Dvh], prescription_gy: Mapping[str, float]) -> dict[str, float]:
    """Returns `TARGET_VALUES` of the target with the highest prescription.

    Args:
        dvhs: dose-volume histogram by structure, including the targets.
        prescription_gy: prescription by target.

    Returns:
        `target_d95` and `target_d98` as fractions of the prescription, `target_hi` the homogeneity index.
    """
    target = max(prescription_gy, key=lambda name: prescription_gy[name])
    dvh, prescribed = dvhs[target], prescription_gy[target]
    values = dvh.dose_at_volume(0.95) / prescribed, dvh.dose_at_volume(0.98) / prescribed, homogeneity_index(dvh)
    return dict(zip(TARGET_VALUES, values, strict=True))
