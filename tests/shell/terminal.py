"""A terminal for tests: kshell behind a pty, its screen drawn by pyte, no sleeps but waits for text."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pexpect
import pyte

COLUMNS, LINES = 100, 24


class Terminal:
    """``kshell`` with *arguments* on a terminal of 100 x 24."""

    def __init__(self, home: Path, *arguments: str, program: list[str] | None = None, **env: str) -> None:
        command = program or [sys.executable, "-m", "kshell", *arguments]
        self.screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self.screen)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KSHELL", "XDG"))}
        self.child = pexpect.spawn(
            command[0], command[1:], dimensions=(LINES, COLUMNS), timeout=20,
            env={**kept, "HOME": str(home), "TERM": "xterm", "LESS": "-R", **env})
        self.seen = b""

    def read(self, seconds: float = 0.05) -> None:
        """Draw what has come, waiting at most *seconds* for something."""
        try:
            data = self.child.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.seen += data
        self._stream.feed(data)
        for _ in range(data.count(b"\x1b[6n")):  # "where is the cursor?", which a terminal answers
            self.child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait(self, text: str, seconds: float = 20) -> None:
        """Wait until *text* is on the screen."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} did not appear in:\n{self.text}"
            self.read()

    def prompt(self, text: str = ">", seconds: float = 20) -> None:
        """Wait until a line is *text*: a prompt with nothing behind it."""
        end = time.monotonic() + seconds
        while text not in self.lines:
            assert time.monotonic() < end, f"no prompt {text!r} in:\n{self.text}"
            self.read()

    def wait_gone(self, text: str, seconds: float = 20) -> None:
        """Wait until *text* is no longer on the screen."""
        end = time.monotonic() + seconds
        while text in self.text:
            assert time.monotonic() < end, f"{text!r} stays in:\n{self.text}"
            self.read()

    def type(self, text: str) -> None:
        """Press keys."""
        self.child.send(text)

    def enter(self, text: str) -> None:
        """Type a line and Enter."""
        self.child.send(text + "\r")

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        end = time.monotonic() + 20
        while self.child.isalive() and time.monotonic() < end:
            self.read()
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else 128 + self.child.signalstatus)
