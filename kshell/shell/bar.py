"""A progress bar on standard error, for work that takes longer than a look."""

from __future__ import annotations

import sys
import time

BAR = 30
EVERY = 0.1  # seconds between two looks of the bar


class Bar:
    """A line on the terminal that is written over.

    :param after: seconds that work has to take before there is a bar at all
    """

    def __init__(self, *, shown: bool, after: float = 0.0) -> None:
        self.shown, self.after = shown, after
        self._last, self._begun, self._what = 0.0, time.monotonic(), ""
        self._width = 0

    def show(self, what: str, done: int, total: int) -> None:
        """Show that *done* of *total* is done; nothing to tell of at the end (*what* empty) wipes the line."""
        now = time.monotonic()
        if done >= total and not what:
            self.clear()
            self._what = ""  # the same work again is other work
            return
        if not self.shown or (now - self._last < EVERY and done < total):
            return
        if what != self._what:
            self._what, self._begun = what, now
        if now - self._begun < self.after:
            return
        self._last = now
        share = min(done / total, 1.0) if total else 1.0
        left = (now - self._begun) * (1 - share) / share if share else 0.0
        full = int(share * BAR)
        text = f"{what} [{'#' * full}{'.' * (BAR - full)}] {share:4.0%}  {left:.0f} s left"
        sys.stderr.write(f"\r{text:<{self._width}}")
        sys.stderr.flush()
        self._width = len(text)

    def clear(self) -> None:
        """Wipe the line."""
        if self._width:
            sys.stderr.write(f"\r{'':<{self._width}}\r")
            sys.stderr.flush()
            self._width = 0
