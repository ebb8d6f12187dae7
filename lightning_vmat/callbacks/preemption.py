"""Word from outside that a training's time is nearly up: SIGUSR1, which Slurm sends before the time limit.

The signal only leaves a note, so it does no harm while Python still imports, or after the training; and processes
that train together stop after the same batch, where Lightning's own handler would save at once, wherever each is.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

STOPPED = 75  # exit status: stopped with a checkpoint, to go on later (EX_TEMPFAIL of sysexits.h)
_notes: list[int] = []


class TimeIsUp(Exception):
    """A training stopped with a checkpoint because it was told to."""


def listen() -> None:
    """From now on SIGUSR1 is a notice. Only the main thread of a process can listen."""
    _notes.clear()
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _take)


def given() -> bool:
    """Whether notice was given since this process began to listen."""
    return bool(_notes)


def _take(number: int, frame: FrameType | None) -> None:
    _notes.append(number)
