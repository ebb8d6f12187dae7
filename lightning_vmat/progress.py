"""Progress of long loops: a bar on a terminal, elsewhere (a log file, a Slurm job) a line a minute at most."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

from tqdm import tqdm

T = TypeVar("T")

INTERVAL_S = 60.0  # between two lines


@runtime_checkable
class Stream(Protocol):
    """Something that text is written to."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""


def on_terminal(stream: Stream) -> bool:
    """Whether what is written to a stream is seen on a terminal, where a bar can move."""
    return stream.isatty()


class Pace:
    """Says when the next line is due: the first an interval after the start, then one an interval at most.

    Args:
        interval_s: seconds between two lines.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.interval_s = interval_s
        self.start_s = self.last_s = time.monotonic()

    def due(self) -> bool:
        """Whether a line is due; it counts as written then."""
        now_s = time.monotonic()
        if now_s - self.last_s < self.interval_s:
            return False
        self.last_s = now_s
        return True

    def elapsed(self) -> str:
        """Time since the start, `h:mm:ss`."""
        minutes, seconds = divmod(int(time.monotonic() - self.start_s), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Progress:
    """Progress through a known number of steps, on stderr; a context manager.

    On a terminal this is a tqdm bar. Elsewhere it writes a line a minute at most, and one when the last step is done.

    Args:
        total: number of steps.
        what: what is counted, such as `cases`.
        shown: False writes nothing.
        lasting: keep the full bar, or write the last line; False for the inner loops of a longer work.
        interval_s: seconds between two lines.
    """

    def __init__(
        self, total: int, what: str, *, shown: bool = True, lasting: bool = True, interval_s: float = INTERVAL_S
    ) -> None:
        self.total, self.what, self.lasting = total, what, lasting
        self.done = 0
        self.pace = Pace(interval_s)
        as_bar = shown and on_terminal(sys.stderr)
        self.bar = tqdm(total=total, desc=what, leave=lasting) if as_bar else None
        self.writes = shown and not as_bar

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps as done.

        Args:
            steps: how many.
            note: name of the last one.
        """
        self.done += steps
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note)
            self.bar.update(steps)
        last = self.lasting and steps > 0 and self.done >= self.total
        if self.writes and (self.pace.due() or last):
            print(f"{self.what}: {self.done} of {self.total} in {self.pace.elapsed()}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def track(
    items: Iterable[T],
    what: str,
    *,
    total: int | None = None,
    shown: bool = True,
    lasting: bool = True,
    interval_s: float = INTERVAL_S,
) -> Iterator[T]:
    """Yields the items, and shows the progress through them as `Progress` does.

    Args:
        items: what to go through.
        what: what is counted, such as `cases`.
        total: number of items; their length if not given.
        shown: False writes nothing.
        lasting: see `Progress`.
        interval_s: seconds between two lines.

    Raises:
        ValueError: no total for items without a length.
    """
    if total is None:
        if not isinstance(items, Sized):
            raise ValueError(f"progress of {what}: expected a total for items without a length")
        total = len(items)
    with Progress(total, what, shown=shown, lasting=lasting, interval_s=interval_s) as progress:
        for item in items:
            yield item
            progress.advance()
