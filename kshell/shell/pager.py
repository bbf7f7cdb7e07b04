"""Long output goes through a pager: held until a screen is full, then streamed into ``less``, or what there is.

The first 150 ms are held, so that a short answer is simply printed and a long one starts in the pager. What is written
to stderr while the pager runs is shown when it has ended. Quitting the pager stops whoever makes the output.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from typing import IO, TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import subprocess

HOLD = 0.15


class PagerQuit(Exception):
    """The user has left the pager: nobody reads the rest."""


class PagedOutput:
    """A text stream for the output of one command."""

    def __init__(self, out: TextIO, err: TextIO, *, enabled: bool) -> None:
        self._out, self._err = out, err
        self._enabled = enabled
        self._rows = shutil.get_terminal_size().lines
        self._kept: list[str] = []
        self._shown = 0
        self._lines = 0
        self._since = time.monotonic()
        self._pager: subprocess.Popen[bytes] | None = None
        self._late: list[str] = []
        self.errors_stream = _Errors(self)

    def write(self, text: str) -> int:
        if self._pager is not None:
            self._feed(text)
        elif not self._enabled:
            self._out.write(text)
        else:
            self._kept.append(text)
            self._lines += text.count("\n")
            if self._lines >= self._rows - 1:
                self._start()
            elif self._shown or time.monotonic() - self._since > HOLD:
                self._show()
        return len(text)

    def flush(self) -> None:
        """Bring out what is held; a running pager has it already."""
        if self._pager is None:
            self._show()
            self._out.flush()

    def _show(self) -> None:
        """Write what is held to the terminal, and keep it: the pager gets all of it if one is needed after all."""
        if self._enabled:
            self._out.write("".join(self._kept[self._shown :]))
            self._shown = len(self._kept)
            self._out.flush()

    def _start(self) -> None:
        import shlex
        import subprocess

        chosen = os.environ.get("KSHELL_PAGER") or os.environ.get("PAGER")
        command = shlex.split(chosen or ("less" if shutil.which("less") else "more"))
        environment = dict(os.environ)
        environment.setdefault("LESS", "-RFX" if self._shown == 0 else "-R")
        try:
            self._pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        except (OSError, IndexError):
            self._show()
            self._enabled = False
            return
        kept, self._kept = self._kept, []
        self._feed("".join(kept))

    def _feed(self, text: str) -> None:
        assert self._pager is not None and self._pager.stdin is not None
        try:
            pipe: IO[bytes] = self._pager.stdin
            pipe.write(text.encode("utf-8", "backslashreplace"))
            pipe.flush()
        except BrokenPipeError:
            raise PagerQuit from None

    def error(self, text: str) -> None:
        """Write to stderr, or keep it until the pager has ended."""
        if self._pager is not None:
            self._late.append(text)
        else:
            self.flush()
            self._err.write(text)
            self._err.flush()

    def finish(self) -> None:
        """Wait for the pager, if there is one, and show what had to wait."""
        if self._pager is None:
            self.flush()
            return
        assert self._pager.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._pager.stdin.close()
        while True:
            try:
                self._pager.wait()
                break
            except KeyboardInterrupt:
                continue
        self._pager = None
        self._err.write("".join(self._late))
        self._err.flush()


class _Errors:
    """stderr as a command sees it."""

    def __init__(self, paged: PagedOutput) -> None:
        self._paged = paged

    def write(self, text: str) -> int:
        self._paged.error(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held here."""


def may_page() -> bool:
    """Whether there is a terminal on both sides."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
