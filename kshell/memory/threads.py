"""Work spread over the cores by a few threads: for compressing and reading files, which let other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def at_once(work: Callable[[T], object], jobs: Sequence[T], most: int) -> None:
    """Have *work* done on each of *jobs* by at most *most* threads, begun in order; the caller's thread works too.

    The first exception of any job, or one that interrupts the caller (Ctrl-C), ends all after the jobs they are at.
    """
    from threading import Thread

    failed: list[BaseException] = []
    waiting = iter(jobs)

    def run() -> None:
        try:
            for job in waiting:  # next() of a sequence's iterator is one step of the interpreter: no lock is needed
                if failed:
                    return
                work(job)
        except BaseException as error:
            failed.append(error)

    helpers = [Thread(target=run, name="kshell-work", daemon=True) for _ in range(min(cores(), most, len(jobs)) - 1)]
    try:
        for helper in helpers:
            helper.start()
        run()
        for helper in helpers:
            helper.join()
    except BaseException as error:
        failed.append(error)
        raise
    finally:
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if failed:
        raise failed[0]


def stream(work: Callable[[T], R], jobs: Iterable[T], ahead: int = 2) -> Iterator[R]:
    """Yield the result of *work* on each of *jobs*, in order, while threads work at those that follow.

    At most *ahead* jobs a core are begun or done and not yet taken. When the caller leaves early, or a job fails, the
    others end after the jobs they are at.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    count = cores()
    pool = ThreadPoolExecutor(count, "kshell-work")
    begun: list[Future[R]] = []
    try:
        for job in jobs:
            begun.append(pool.submit(work, job))
            if len(begun) > ahead * count:
                yield begun.pop(0).result()
        while begun:
            yield begun.pop(0).result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
