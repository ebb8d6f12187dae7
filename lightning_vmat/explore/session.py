"""A session of planning by wish: one patient, the plans made so far, and the computation of the next one.

The session knows nothing of a page or a network. A page, a notebook or a test calls its methods and listens to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lightning_vmat.api.planners import JAW_MARGIN_MM
from lightning_vmat.cases.patient import OpenedPatient
from lightning_vmat.explore.cancelling import Cancelled, Check
from lightning_vmat.explore.history import History, Step
from lightning_vmat.explore.kept import Kept, never
from lightning_vmat.explore.made_plan import Computation, MadePlan
from lightning_vmat.explore.making import judge_plan, make_plan
from lightning_vmat.explore.settings import Settings, session_wishes, with_geometry
from lightning_vmat.objectives.protocol import load_protocol
from lightning_vmat.planning.body_dose import BodyDose
from lightning_vmat.planning.planners import BUDGET

VOXELS = 30_000  # fewer than elsewhere, so that a plan takes 2 s; its figures follow from the whole body
PLANNERS = ("learned", "generator", "teacher", "regression", "conventional")
"""Planners to choose from, beside the one that the session was opened with."""

FIRST_SEED = 0

Listener = Callable[[int], None]
"""Called, from any thread, with the number of the session's state after each change."""


class Session:
    """Plans one patient by wish.

    >>> import lightning_vmat as vmat
    >>> from lightning_vmat.cases.patient import OpenedPatient
    >>> from lightning_vmat.explore.session import Session
    >>> session = Session(OpenedPatient(vmat.phantom(0, size="tiny"), None, None, None), "conventional", voxels=300)
    >>> session.wait()
    >>> before = session.current.figures["Rectum mean (Gy)"]
    >>> session.change(wishes={"Rectum": 4})
    >>> session.wait()
    >>> session.current.figures["Rectum mean (Gy)"] < before
    True
    >>> session.close()

    Args:
        opened: the patient.
        planner: name of the planner.
        run: run, checkpoint or weights of the planner; None for the weights in the package.
        evaluations: dose evaluations after a change of a wish.
        voxels: size of the voxel sample on which plans are optimised.
        seed: seed of the voxel sample.
        jaw_margin_mm: see `api.planner`.

    Raises:
        ValueError: a planner that does not exist or that ends in an ideal fluence.
    """

    def __init__(
        self,
        opened: OpenedPatient,
        planner: str = "learned",
        *,
        run: Path | None = None,
        evaluations: int | None = None,
        voxels: int = VOXELS,
        seed: int = 0,
        jaw_margin_mm: float | None = JAW_MARGIN_MM,
    ) -> None:
        self.opened = opened
        self.kept = Kept(opened, {planner: run}, voxels, seed, jaw_margin_mm)
        self.planner_names = list(dict.fromkeys((*PLANNERS, planner)))
        self.protocol = load_protocol(opened.case.protocol)
        self.wish_names = session_wishes(opened.case, self.protocol)
        first = Settings(wishes=dict(opened.case.wishes), planner=planner)
        self.settings = first if evaluations is None else first.changed({"evaluations": evaluations}, self.protocol)
        self.plans: dict[int, MadePlan] = {}
        self.pinned: list[int] = []
        self.history = History()
        self.error = ""
        self.cancelled = 0
        self._listeners: list[Listener] = []
        self._running: Computation | None = None
        self._waiting: Computation | None = None
        self._judging: int | None = None
        self._version = self._computations = self._last_seed = 0
        self._closed = False
        self._changed = threading.Condition(threading.RLock())
        self.kept.planner(planner)  # a wrong name ends the command before the page opens
        self._worker = threading.Thread(target=self._work, name="vmat-session", daemon=True)
        self._worker.start()
        self._request(scratch=True)

    # -- what the user does

    def change(self, **changes: Any) -> None:
        """Changes settings, and plans again where they matter; a computation for older settings ends.

        Args:
            changes: see `Settings.changed`; a wish of 1 removes it.

        Raises:
            ValueError: an unknown setting, or a value out of range; nothing changes then.
        """
        with self._changed:
            before, after = self.settings, self.settings.changed(changes, self.protocol)
            with_geometry(self.opened.case, after, self.opened.patient_position)
            if after.planner not in self.planner_names:  # a page must not name modules to import
                raise ValueError(f"planner {after.planner!r}: expected one of {', '.join(self.planner_names)}")
            if after.planner != before.planner:
                self.kept.planner(after.planner)
            self.settings = after
            if replace(after, evaluations=before.evaluations) == before:
                self._notify()
                return
            self._request(scratch=after.planner != before.planner)

    def another(self) -> None:
        """Makes another plan for the same settings, from other noise.

        Raises:
            ValueError: a planner that makes one plan only.
        """
        with self._changed:
            if not self.can_draw:
                raise ValueError(f"planner {self.settings.planner}: makes one plan only for the same wishes")
            self._last_seed += 1
            self._request(scratch=True, seed=self._last_seed)

    def undo(self) -> None:
        """Ends a computation and returns to the current step; without a computation, goes one step back.

        Raises:
            ValueError: no earlier step.
        """
        with self._changed:
            current = self.history.current
            if self._busy and current is not None:
                self._cancel()
                self._return_to(current)
            else:
                self._return_to(self.history.undo())

    def redo(self) -> None:
        """Goes one step forward.

        Raises:
            ValueError: no step that was undone.
        """
        with self._changed:
            step = self.history.redo()
            self._cancel()
            self._return_to(step)

    def choose(self, number: int) -> None:
        """Makes an earlier plan the current one, with its settings, as a new step.

        Raises:
            ValueError: no such plan.
        """
        with self._changed:
            step = Step(self.plan(number).settings, number)
            self._cancel()
            if self.history.current != step:
                self.history.add(step)
            self._return_to(step)

    def pin(self, number: int, pinned: bool = True) -> None:
        """Pins a plan, to compare others with it, or releases it.

        Raises:
            ValueError: no such plan.
        """
        with self._changed:
            self.plan(number)
            self.pinned = [other for other in self.pinned if other != number] + ([number] if pinned else [])
            self._notify()

    # -- what the user sees

    @property
    def current(self) -> MadePlan | None:
        """The current plan; None before the first."""
        with self._changed:
            step = self.history.current
            return None if step is None else self.plans[step.plan]

    @property
    def computation(self) -> Computation | None:
        """The computation that runs or waits; None if there is none."""
        with self._changed:
            return self._waiting or self._running

    @property
    def can_draw(self) -> bool:
        """Whether `another` is possible."""
        with self._changed:
            return self.kept.draws(self.settings)

    def plan(self, number: int) -> MadePlan:
        """Returns a plan by its number.

        Raises:
            ValueError: no such plan.
        """
        with self._changed:
            if number not in self.plans:
                raise ValueError(f"plan {number}: expected one of 1 to {len(self.plans)}")
            return self.plans[number]

    def volume(self, number: int) -> Float[Tensor, "z y x"]:
        """Returns the dose of a plan on the grid: quick and interpolated, or exact once the whole body is computed."""
        return self.kept.volume(self.plan(number))

    def preview_volume(self) -> Float[Tensor, "z y x"] | None:
        """Returns the quick dose of the generated fluence of the running computation; None without one."""
        with self._changed:
            running = self._running
        return None if running is None else self.kept.preview_volume(running)

    def state(self) -> dict[str, Any]:
        """Returns what a page shows, as JSON: settings, numbers of plans, history, and the computation."""
        with self._changed:
            step, computation = self.history.current, self._waiting or self._running
            return {
                "version": self._version,
                "settings": self.settings.as_json(),
                "current": None if step is None else step.plan,
                "plans": {number: made.measured.exact for number, made in self.plans.items()},
                "pinned": list(self.pinned),
                "steps": [one.plan for one in self.history.steps],
                "position": self.history.position,
                "can_undo": self.history.can_undo or (computation is not None and step is not None),
                "can_redo": self.history.can_redo,
                "can_draw": self.can_draw,
                "computation": None if computation is None else computation.as_json(),
                "judging": self._next_to_judge(),
                "error": self.error,
            }

    def body_dose(self, made: MadePlan) -> BodyDose:
        """Returns the dose on every voxel of the body, with the operators that the session keeps."""
        return self.kept.bench(made.settings).body_dose(never)

    def judged(self, number: int) -> MadePlan:
        """Returns a plan judged on every voxel of the body; computes that first if needed.

        Raises:
            ValueError: no such plan.
        """
        made = self.plan(number)
        return made if made.evaluation is not None else self._judge(made, never)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls a listener after each change; returns the function that ends this."""
        with self._changed:
            self._listeners.append(listener)

        def end() -> None:
            with self._changed:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    def wait(self, timeout_s: float = 600.0, judged: bool = False) -> None:
        """Waits until nothing is computed.

        Args:
            timeout_s: longest time.
            judged: also wait until the current plan and the pinned ones are judged on the whole body.

        Raises:
            TimeoutError: a computation that takes longer.
            ValueError: planning failed; the message says why.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._busy or (judged and not self._closed and self._next_to_judge() is not None):
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(f"session: still computing after {timeout_s:g} s")
            if self.error:
                raise ValueError(self.error)

    def close(self) -> None:
        """Ends all computations."""
        with self._changed:
            self._closed = True
            self._cancel()
            self._changed.notify_all()
        self._worker.join(timeout=60)

    # -- the worker

    @property
    def _busy(self) -> bool:
        return self._running is not None or self._waiting is not None

    def _request(self, scratch: bool, seed: int | None = None) -> None:
        """Asks the worker for a plan, in place of what it does now."""
        with self._changed:
            self._cancel()
            self._computations += 1
            seed = self._seed_of_current() if seed is None else seed
            evaluations = BUDGET if scratch or self._start(self.settings) is None else self.settings.evaluations
            self._waiting = Computation(self._computations, self.settings, seed, scratch, evaluations)
            self.error = ""
            self._notify()

    def _start(self, settings: Settings) -> MadePlan | None:
        """Returns the current plan if it has the arcs of the settings."""
        current = self.current
        return current if current is not None and current.settings.geometry == settings.geometry else None

    def _seed_of_current(self) -> int:
        current = self.current
        return FIRST_SEED if current is None else current.seed

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self.cancelled += 1
        self._waiting = None

    def _return_to(self, step: Step) -> None:
        self.settings, self.error = step.settings, ""
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._version += 1
            version, listeners = self._version, list(self._listeners)
            self._changed.notify_all()
        for listener in listeners:
            listener(version)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._closed and self._next_to_judge() is None:
                    self._changed.wait()
                if self._closed:
                    return
                self._running, self._waiting = self._waiting, None
                computation, judging = self._running, None if self._running is not None else self._next_to_judge()
                self._judging = judging
            try:
                if computation is not None:
                    self._compute(computation)
                elif judging is not None:
                    self._judge(self.plan(judging), self._check_idle)
            except Cancelled:
                pass
            except Exception as error:  # the page must show it; the session goes on
                self._fail(computation, error)
            finally:
                with self._changed:
                    self._running = self._judging = None
                self._notify()

    def _fail(self, computation: Computation | None, error: Exception) -> None:
        with self._changed:
            step = self.history.current
            if computation is None or self._waiting is None:
                self.error = " ".join(str(error).split()) or type(error).__name__
                if step is not None:
                    self.settings = step.settings

    def _next_to_judge(self) -> int | None:
        """Number of the plan whose whole body is to be computed next; None without one, or after an error."""
        step = self.history.current
        if step is None or self.error:
            return None
        wanted = (step.plan, *self.pinned)
        return next((number for number in wanted if self.plans[number].evaluation is None), None)

    def _check_idle(self) -> None:
        with self._changed:
            if self._waiting is not None or self._closed or self._next_to_judge() != self._judging:
                raise Cancelled("something newer is wanted")

    def _compute(self, computation: Computation) -> None:
        settings = computation.settings
        start = None if computation.scratch else self._start(settings)
        planner, bench = self.kept.planner(settings.planner), self.kept.bench(settings)
        self._add(computation, make_plan(computation, start, planner, bench, self._notify))

    def _add(self, computation: Computation, made: MadePlan) -> None:
        """Adds a finished plan as the current step, unless something newer is wanted."""
        with self._changed:
            computation.check()
            number = len(self.plans) + 1
            self.plans[number] = replace(made, number=number)
            self.history.add(Step(made.settings, number))

    def _judge(self, made: MadePlan, check: Check) -> MadePlan:
        """Judges a plan on every voxel of the body."""
        made, dose_gy = judge_plan(made, self.kept.bench(made.settings), check)
        self.kept.keep_volume(made.number, dose_gy, exact=True)
        with self._changed:
            self.plans[made.number] = made
        self._notify()
        return made
