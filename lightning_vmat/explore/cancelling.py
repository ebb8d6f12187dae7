"""Ends a computation between two dose evaluations."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from lightning_vmat.dose.operator import DoseOperator
from lightning_vmat.dose.projection import DoseProjection

Check = Callable[[], None]
"""Raises `Cancelled` if the computation that calls it is no longer wanted."""


class Cancelled(Exception):
    """The computation is no longer wanted, because a newer one is."""


class CancellableProjection(DoseProjection):
    """A dose projection that asks before every dose calculation whether its result is still wanted.

    Args:
        operator: the dose operator.
        check: raises `Cancelled` to end the computation.
    """

    def __init__(self, operator: DoseOperator, check: Check) -> None:
        super().__init__(operator)
        self.check = check

    def forward(self, fluence_mu: Tensor) -> Tensor:
        """Returns the dose, see `DoseProjection`."""
        self.check()
        dose_gy: Tensor = super().forward(fluence_mu)
        return dose_gy
