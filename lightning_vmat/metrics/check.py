"""One figure of the dose's accuracy, with the bounds for passing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Check:
    """A measured figure with its bounds.

    Args:
        subject: object of the check: `box, gantry 45, open field`.
        measure: measure with its unit: `gamma 2 %/2 mm pass rate`.
        value: measured value.
        low: smallest value that passes; minus infinity if none.
        high: largest value that passes; infinity if none. A figure without bounds is only stated.
    """

    subject: str
    measure: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether the value is within its bounds."""
        return self.low <= self.value <= self.high

    @property
    def bound(self) -> str:
        """The bounds as text, `stated` without bounds."""
        if math.isinf(self.low) and math.isinf(self.high):
            return "stated"
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"

    @property
    def verdict(self) -> str:
        """`pass`, `FAIL`, or `-` without bounds."""
        return ("pass" if self.passed else "FAIL") if self.bound != "stated" else "-"

    def as_dict(self) -> dict[str, str | float | bool | None]:
        """Returns the values for a JSON file, with None for infinite ones."""
        values = {key: None if isinstance(v, float) and math.isinf(v) else v for key, v in asdict(self).items()}
        return {**values, "passed": self.passed}


def as_table(checks: Iterable[Check]) -> str:
    """Returns the checks as a table with aligned columns, one line for each check."""
    rows = [("subject", "measure", "value", "bound", "")]
    rows += [(c.subject, c.measure, f"{c.value:.4g}", c.bound, c.verdict) for c in checks]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows)
