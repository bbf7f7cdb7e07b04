"""Work spread over the cores by a few threads, its results in order. For codecs, which let other threads run.

Not concurrent.futures: importing it takes longer (it loads logging) than what a small reader has to decompress.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def spread(work: Callable[[T], R], jobs: Sequence[T]) -> list[R]:
    """Return the result of *work* on each of *jobs*, in order; the caller's thread works too.

    The first exception of any job, or one that interrupts the caller (Ctrl-C), ends all after the jobs they are at.
    """
    count = min(cores(), len(jobs))
    if count < 2:
        return [work(job) for job in jobs]
    results: dict[int, R] = {}
    failed: list[BaseException] = []
    waiting = iter(range(len(jobs)))

    def run() -> None:
        try:
            for number in waiting:  # next() of a range is one step of the interpreter: no lock is needed
                results[number] = work(jobs[number])
                if failed:
                    return
        except BaseException as error:
            failed.append(error)

    helpers = [threading.Thread(target=run, name="kshell-pages", daemon=True) for _ in range(count - 1)]
    try:
        for helper in helpers:
            helper.start()
        run()
    except BaseException as error:
        failed.append(error)
        raise
    finally:
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if failed:
        raise failed[0]
    return [results[number] for number in range(len(jobs))]


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
