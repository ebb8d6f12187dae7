"""The settings of planners, and which of them each kind of planner accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.planner import Planner
from lightning_vmat.planning.planners import BUDGET
from lightning_vmat.planning.problem import VOXELS

OPTIONAL = ("run", "start", "optimizer", "evaluations", "when_unlike")
"""Settings that only some planners accept."""


@dataclass(frozen=True)
class PlannerSettings:
    """The settings of a planner. Jaws and wishes are applied to the case before planning.

    Args:
        name: name of the planner, as requested.
        optimizer: name of a fluence optimizer; None for the planner's own.
        run: run directory, checkpoint or weights; None for the weights in the package.
        start: plan to start from, at the control points and on the rows of the case, or an RTPLAN; None for none.
        evaluations: total number of dose evaluations; None for the planner's own number.
        when_unlike: planner for cases that are unlike those of the training; None to plan them all the same.
        voxels: size of the voxel sample.
        seed: seed for the voxel sample and for noise.
        progress: show progress bars.
    """

    name: str
    optimizer: str | None = None
    run: Path | None = None
    start: Plan | Path | None = None
    evaluations: int | None = None
    when_unlike: str | None = None
    voxels: int = VOXELS
    seed: int = 0
    progress: bool = False

    @property
    def budget(self) -> int:
        """Total number of dose evaluations of a quick planner."""
        return BUDGET if self.evaluations is None else self.evaluations


Factory = Callable[[PlannerSettings], Planner]


@dataclass(frozen=True)
class PlannerKind:
    """A kind of planner.

    Args:
        make: function that makes a planner from its settings.
        takes: settings of `OPTIONAL` that it accepts.
    """

    make: Factory
    takes: tuple[str, ...] = ()

    def check(self, settings: PlannerSettings) -> None:
        """Refuse settings that planners of this kind do not accept.

        Raises:
            ValueError: such a setting; the error names it.
        """
        for name in OPTIONAL:
            value = getattr(settings, name)
            if value is not None and name not in self.takes:
                takes = ", ".join(self.takes) or "none of these"
                shown = f" {value}" if isinstance(value, str | int | Path) else ""
                raise ValueError(f"{name}{shown}: planner {settings.name} does not take one (it takes {takes})")
