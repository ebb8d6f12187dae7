"""Work in several processes: all of it is done, and a lost process is told of."""

from __future__ import annotations

import os
import signal

import pytest

from lightning_vmat.data.parallel import in_processes

MANY = 130  # more than any limit of tasks for one process that libraries set


def twice(number: int) -> str:
    return str(2 * number)


def die_at_three(number: int) -> str:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return str(number)


@pytest.mark.parametrize("jobs", [1, 2])
def test_many_things(jobs: int) -> None:
    assert sorted(in_processes(twice, range(MANY), jobs), key=int) == [str(2 * number) for number in range(MANY)]


def test_a_lost_process_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(ChildProcessError, match=r"a process was killed, .*the same command continues"):
        list(in_processes(die_at_three, range(8), 2))
