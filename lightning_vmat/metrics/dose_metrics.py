"""Target dose and goals met, averaged over the cases of a validation or test epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_vmat.metrics.conformity import homogeneity_index
from lightning_vmat.metrics.dvh import Dvh

NAMES = ("target_d95", "target_d98", "target_hi", "goals_met")


class DoseMetrics(Metric):
    """Means over cases; sums and counts add up over processes, so an uneven split between ranks is exact.

    `target_d95` and `target_d98` are fractions of the highest prescription, of the target that has it; `target_hi`
    its homogeneity index; `goals_met` the fraction of clinical goals met, per case.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(len(NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, dvhs: Mapping[str, Dvh], prescription_gy: Mapping[str, float], goals_met: float) -> None:
        """Add one case.

        Args:
            dvhs: dose-volume histogram by structure; holds the targets.
            prescription_gy: prescription by target.
            goals_met: fraction of the case's clinical goals that are met.
        """
        target = max(prescription_gy, key=lambda name: prescription_gy[name])
        dvh, prescribed = dvhs[target], prescription_gy[target]
        values = (
            dvh.dose_at_volume(0.95) / prescribed,
            dvh.dose_at_volume(0.98) / prescribed,
            homogeneity_index(dvh),
            goals_met,
        )
        self.total += self.total.new_tensor(values)
        self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Mean of each measure over all cases; NaN before the first."""
        return dict(zip(NAMES, (self.total / self.count).float().unbind(), strict=True))
