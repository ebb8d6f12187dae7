"""What planners are made with, and how planners of a name say what they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_vmat.plan.aperture import Plan
from lightning_vmat.planning.planner import Planner
from lightning_vmat.planning.planners import BUDGET
from lightning_vmat.planning.problem import VOXELS

OPTIONAL = ("run", "start", "optimizer", "evaluations")
"""Settings that only some planners take."""


@dataclass(frozen=True)
class PlannerSettings:
    """What a planner is made with; jaws and wishes are applied to the case before.

    Args:
        name: of the planner, as it was asked for.
        optimizer: name of a fluence optimizer; None for the planner's own.
        run: a trained run; None for the weights in the package.
        start: plan to start from, at the control points and on the rows of the case, or an RTPLAN; None for none.
        evaluations: dose evaluations in all; None for the planner's own number.
        voxels: size of the voxel sample.
        seed: seed for the voxel sample and for noise.
        progress: show progress bars.
    """

    name: str
    optimizer: str | None = None
    run: Path | None = None
    start: Plan | Path | None = None
    evaluations: int | None = None
    voxels: int = VOXELS
    seed: int = 0
    progress: bool = False

    @property
    def budget(self) -> int:
        """Dose evaluations in all of a quick planner."""
        return BUDGET if self.evaluations is None else self.evaluations


Factory = Callable[[PlannerSettings], Planner]


@dataclass(frozen=True)
class PlannerKind:
    """Planners of one name.

    Args:
        make: makes one.
        takes: those of `OPTIONAL` that it heeds.
    """

    make: Factory
    takes: tuple[str, ...] = ()

    def check(self, settings: PlannerSettings) -> None:
        """Refuse settings that planners of this kind do not take.

        Raises:
            ValueError: one that is set all the same, by name.
        """
        for name in OPTIONAL:
            value = getattr(settings, name)
            if value is not None and name not in self.takes:
                takes = ", ".join(self.takes) or "none of these"
                shown = f" {value}" if isinstance(value, str | int | Path) else ""
                raise ValueError(f"{name}{shown}: planner {settings.name} does not take one (it takes {takes})")
