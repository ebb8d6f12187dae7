"""Parallel work in processes of one thread each, so that results do not depend on their number."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def in_processes(work: Callable[[T], str], things: Sequence[T], jobs: int) -> Iterator[str]:
    """Apply a function to each item, and yield the results in order of completion.

    Args:
        work: function to apply; picklable.
        things: items to process.
        jobs: number of processes; 1 uses this process. Processes are not replaced: `max_tasks_per_child` hangs in
            Python 3.11 and 3.12 (python/cpython 115634), and memory does not grow.

    Raises:
        ChildProcessError: a process was killed.
    """
    with one_thread():
        if jobs <= 1:
            yield from map(work, things)
            return
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(os.getpid(),))
        try:
            for done in as_completed([pool.submit(work, thing) for thing in things]):
                yield done.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a process was killed, perhaps for lack of memory; finished cases are kept, the same command continues"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread here and in child processes: another order of sums would change the last bits of plans."""
    before, threads = {name: os.environ.get(name) for name in THREADS}, torch.get_num_threads()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(parent: int) -> None:
    """Start a process: one thread, and exit if its parent is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
