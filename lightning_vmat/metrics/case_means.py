"""Means over the cases of a validation or test epoch, over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class CaseMeans(Metric):
    """Means of named values over cases; a case need not have all values.

    Sums and counts are added over processes, so uneven splits between ranks are exact. All processes must call
    `compute`, even those whose cases had none of the values.

    Args:
        names: names of the values.
    """

    full_state_update = False
    higher_is_better: bool | None = None
    total: Tensor
    count: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("total", torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(names), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor | float]) -> None:
        """Adds some cases.

        Args:
            values: values by name, one for each case.
        """
        for name, cases in values.items():
            place = self.names.index(name)
            added = torch.as_tensor(cases, dtype=torch.float64, device=self.total.device).flatten()
            self.total[place] += added.sum()
            self.count[place] += len(added)

    def compute(self) -> dict[str, Tensor]:
        """Returns the mean of each value that at least one case had."""
        means = (self.total / self.count).float()
        return {name: means[i] for i, name in enumerate(self.names) if self.count[i] > 0}
