"""Handles SIGUSR1, Slurm's warning before the time limit.

The handler only remembers the signal, so that it does no harm during imports or after the training. Processes that
train together then stop after the same batch; Lightning's own handler would save at once, at different batches.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

STOPPED = 75  # exit status: stopped with a checkpoint, to go on later (EX_TEMPFAIL of sysexits.h)
_received: list[int] = []


class TimeIsUp(Exception):
    """A training stopped with a checkpoint because it was told to."""


def listen() -> None:
    """Remember SIGUSR1 from now on. Only the main thread of a process can listen."""
    _received.clear()
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _remember)


def preempted() -> bool:
    """Whether the signal came since this process began to listen."""
    return bool(_received)


def _remember(number: int, frame: FrameType | None) -> None:
    _received.append(number)
