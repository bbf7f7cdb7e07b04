"""Work spread over the cores by a few threads, its results in order. For compressing, which lets other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


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
