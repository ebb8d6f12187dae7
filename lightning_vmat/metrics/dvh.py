"""Dose-volume histograms."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDING = 1e-6  # of summed volumes, as a fraction


class Dvh:
    """The cumulative dose-volume histogram of a structure, exact (one step for each voxel, no bins).

    Args:
        dose_gy: dose of the structure's voxels.
        volume_cc: volume that each voxel represents.

    >>> import torch
    >>> from lightning_vmat.metrics.dvh import Dvh
    >>> dvh = Dvh(torch.tensor([1.0, 2.0, 3.0, 4.0]), volume_cc=torch.ones(4))
    >>> dvh.mean_gy, dvh.dose_at_volume(0.5), dvh.volume_at_dose(2.0)  # mean, D50, V2Gy
    (2.5, 3.0, 0.75)

    Raises:
        ValueError: no voxels, dose that is not finite, or a volume that is not positive.
    """

    def __init__(self, dose_gy: Float[Tensor, " voxel"], volume_cc: Float[Tensor, " voxel"]) -> None:
        if dose_gy.ndim != 1 or dose_gy.shape != volume_cc.shape or len(dose_gy) == 0:
            raise ValueError(
                f"DVH of dose {tuple(dose_gy.shape)} and volume {tuple(volume_cc.shape)}: expected equal lengths >= 1"
            )
        if not bool(dose_gy.isfinite().all()) or not bool((volume_cc > 0).all()):
            raise ValueError("DVH: expected finite dose and positive volumes")
        self.dose_gy, order = dose_gy.detach().double().sort(descending=True)
        self.volume_cc = volume_cc.detach().double()[order]
        self._hottest_cc = self.volume_cc.cumsum(dim=0)

    @property
    def total_cc(self) -> float:
        """Volume of the structure."""
        return float(self._hottest_cc[-1])

    @property
    def mean_gy(self) -> float:
        """Mean dose."""
        return float((self.dose_gy * self.volume_cc).sum() / self._hottest_cc[-1])

    @property
    def max_gy(self) -> float:
        """Maximum dose of a voxel."""
        return float(self.dose_gy[0])

    def dose_at_hottest(self, volume_cc: float) -> float:
        """Returns the dose, Gy, that at least this volume receives (`D0.01cc`); of a smaller structure the minimum."""
        place = torch.searchsorted(self._hottest_cc, volume_cc - _ROUNDING * self.total_cc)
        return float(self.dose_gy[place.clamp(max=len(self.dose_gy) - 1)])

    def dose_at_volume(self, fraction: float) -> float:
        """Returns the dose, Gy, that at least this fraction of the volume receives (0.95 for `D95`)."""
        return self.dose_at_hottest(fraction * self.total_cc)

    def volume_at_dose(self, dose_gy: float) -> float:
        """Returns the fraction of the volume that receives at least this dose (`V54gy`)."""
        return float(self.volume_cc[self.dose_gy >= dose_gy].sum() / self._hottest_cc[-1])

    def curve(self, edges_gy: Float[Tensor, " bin"]) -> Float[Tensor, " bin"]:
        """Returns the fraction of the volume that receives at least each dose."""
        count = torch.searchsorted(-self.dose_gy, -edges_gy.double(), right=True)
        volume_cc = torch.cat((self._hottest_cc.new_zeros(1), self._hottest_cc))[count]
        return volume_cc / self._hottest_cc[-1]

    def summary(self) -> dict[str, float]:
        """Returns D95, D98, D2, D50, mean and maximum dose, Gy."""
        return {
            "d95_gy": self.dose_at_volume(0.95),
            "d98_gy": self.dose_at_volume(0.98),
            "d2_gy": self.dose_at_volume(0.02),
            "d50_gy": self.dose_at_volume(0.50),
            "mean_gy": self.mean_gy,
            "max_gy": self.max_gy,
        }
