"""A clinical goal: one limit on a measure of a dose-volume histogram."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

_MEASURE = re.compile(r"D(?P<percent>\d+(\.\d+)?)|D(?P<cc>\d+(\.\d+)?)cc|V(?P<gy>\d+(\.\d+)?)gy|mean|max")


@runtime_checkable
class DoseVolume(Protocol):
    """The dose-volume histogram of a structure (`metrics.dvh.Dvh`)."""

    @property
    def mean_gy(self) -> float:
        """Mean dose."""

    @property
    def max_gy(self) -> float:
        """Maximum dose."""

    def dose_at_volume(self, fraction: float) -> float:
        """Returns the dose, Gy, that at least this fraction of the volume receives."""

    def dose_at_hottest(self, volume_cc: float) -> float:
        """Returns the dose, Gy, that at least this volume receives."""

    def volume_at_dose(self, dose_gy: float) -> float:
        """Returns the fraction of the volume that receives at least this dose."""


@dataclass(frozen=True)
class Goal:
    """One limit on one measure of a structure's dose.

    Args:
        structure: name of the structure.
        measure: `D99` (dose that 99 % of the volume receive), `D0.01cc` (dose to the hottest 0.01 cc), `V54gy`
            (fraction of the volume that receives 54 Gy), `mean` or `max`.
        at_least: lower limit in Gy; for `V...gy` a fraction of the volume.
        at_most: upper limit, likewise.
        of_prescription: whether the limit of a dose is a fraction of the prescription (the structure's own if it is a
            target, else the highest).
        optional: whether a case may lack the structure.

    Raises:
        ValueError: an unknown measure, not exactly one limit, or a limit out of range.
    """

    structure: str
    measure: str
    at_least: float | None = None
    at_most: float | None = None
    of_prescription: bool = False
    optional: bool = False

    def __post_init__(self) -> None:
        where = f"goal {self.structure} {self.measure}"
        match = _MEASURE.fullmatch(self.measure)
        if match is None or not 0 <= float(match["percent"] or 0) <= 100:
            raise ValueError(f"{where}: measure must be like D99, D0.01cc, V54gy, mean or max")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{where}: expected exactly one of at_least and at_most")
        if not math.isfinite(self.limit) or self.limit < 0:
            raise ValueError(f"{where}: limit is {self.limit}, expected a number >= 0")
        if self.is_volume and (self.limit > 1 or self.of_prescription):
            raise ValueError(f"{where}: limit must be a fraction of the volume, 0 to 1, without of_prescription")

    @property
    def limit(self) -> float:
        """The limit, lower or upper: Gy, a fraction of the prescription, or a fraction of the volume."""
        return self.at_least if self.at_least is not None else self.at_most  # type: ignore[return-value]

    @property
    def is_volume(self) -> bool:
        """Whether the measure is a fraction of the volume (`V...gy`) and not a dose."""
        return self.measure.startswith("V")

    def value(self, dvh: DoseVolume) -> float:
        """Returns the measure's value, in Gy or as a fraction of the volume."""
        match = _MEASURE.fullmatch(self.measure)
        if match is not None and match["percent"]:
            return dvh.dose_at_volume(float(match["percent"]) / 100)
        if match is not None and match["cc"]:
            return dvh.dose_at_hottest(float(match["cc"]))
        if match is not None and match["gy"]:
            return dvh.volume_at_dose(float(match["gy"]))
        return dvh.mean_gy if self.measure == "mean" else dvh.max_gy


@dataclass(frozen=True)
class GoalResult:
    """Outcome of a goal: `value` and `limit` in Gy, or fractions of the volume; `met` says whether the limit holds."""

    structure: str
    measure: str
    value: float
    limit: float
    at_least: bool
    met: bool

    @property
    def limit_text(self) -> str:
        """The limit as `>= 54` or `<= 0.15`."""
        return f"{'>=' if self.at_least else '<='} {self.limit:.4g}"
