"""Handles SIGUSR1, Slurm's warning before the time limit.

The handler only stores the signal, so that it is harmless during imports and after training. Processes that
train together then stop after the same batch; Lightning's own handler would save at once, at different batches.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

STOPPED = 75  # exit status: stopped with a checkpoint, to be resumed (EX_TEMPFAIL of sysexits.h)
_received: list[int] = []


class TimeIsUp(Exception):
    """A training was stopped by a signal, with a checkpoint."""


def listen() -> None:
    """Install the handler of SIGUSR1, in the main thread only."""
    _received.clear()
    if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, _remember)


def preempted() -> bool:
    """Whether this process received the signal."""
    return bool(_received)


def _remember(number: int, frame: FrameType | None) -> None:
    _received.append(number)
