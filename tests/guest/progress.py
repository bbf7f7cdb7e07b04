"""What the rig tells its user while it works, and the errors it raises."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class RigError(Exception):
    """A guest could not be built or run; the text says what failed and where to look."""


class RigUnavailable(RigError):
    """This host lacks something the rig cannot get by itself; the text says how to get it."""


class GuestFailed(RigError):
    """The guest did not do what it should; carries the console log's path."""

    def __init__(self, message: str, console: Path) -> None:
        super().__init__(message)
        self.console = console


def progress(message: str) -> None:
    """Tell the user one thing, on standard error (the only output of the rig besides CLI results)."""
    print(f"guest: {message}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce *what*, and say afterwards how long it took; on a terminal both share one line."""
    terminal = sys.stderr.isatty()
    start = time.monotonic()
    if terminal:
        print(f"guest: {what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        if terminal:
            print(" failed", file=sys.stderr, flush=True)
        else:
            progress(f"{what}: failed after {time.monotonic() - start:.1f} s")
        raise
    if terminal:
        print(f"\rguest: {what}: {time.monotonic() - start:.1f} s\033[K", file=sys.stderr, flush=True)
    else:
        progress(f"{what}: {time.monotonic() - start:.1f} s")
