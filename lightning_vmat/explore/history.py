"""The steps that a user took, with undo and redo."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightning_vmat.explore.settings import Settings


@dataclass(frozen=True)
class Step:
    """A step: the settings, and the number of the plan that they gave."""

    settings: Settings
    plan: int


@dataclass
class History:
    """Steps in order. A new step after `undo` replaces the steps that were undone; their plans remain.

    >>> from lightning_vmat.explore.history import History, Step
    >>> from lightning_vmat.explore.settings import Settings
    >>> history = History()
    >>> for plan in (1, 2):
    ...     history.add(Step(Settings(), plan))
    >>> history.undo().plan, history.can_undo, history.can_redo
    (1, False, True)
    """

    steps: list[Step] = field(default_factory=list)
    position: int = -1

    @property
    def current(self) -> Step | None:
        """The step that is shown; None before the first."""
        return self.steps[self.position] if self.steps else None

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier step."""
        return self.position > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is a step that was undone."""
        return self.position + 1 < len(self.steps)

    def add(self, step: Step) -> None:
        """Adds a step after the current one."""
        self.steps = [*self.steps[: self.position + 1], step]
        self.position += 1

    def undo(self) -> Step:
        """Goes one step back and returns it.

        Raises:
            ValueError: no earlier step.
        """
        if not self.can_undo:
            raise ValueError("undo: there is no earlier step")
        self.position -= 1
        return self.steps[self.position]

    def redo(self) -> Step:
        """Goes one step forward and returns it.

        Raises:
            ValueError: no later step.
        """
        if not self.can_redo:
            raise ValueError("redo: there is no later step")
        self.position += 1
        return self.steps[self.position]
