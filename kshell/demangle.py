"""Names of C++ and Rust functions as their programmers wrote them.

LLVM's demanglers do the work (package pycxxfilt). A name may be crafted: one of 200 bytes stands for 64 MiB of text,
others exhaust a stack. So it is done by a process of its own, which may use so much memory and time and no more; when
it dies, the name stays as it is. Itanium C++ ABI 5.1; Rust RFC 2603 (v0); rustc_codegen_ssa's legacy names, which are
Itanium's with a hash behind.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache

MAX_NAME, MAX_TEXT = 4096, 4096
MEMORY = 256 << 20  # bytes
PATIENCE = 5.0  # seconds
MAX_DEATHS = 8
#: pycxxfilt is imported there only. A name a line; nothing for one that cannot be demangled
_PROGRAM = rf"""
import resource, sys
sys.path[:] = sys.argv[1].split("\n")
from pycxxfilt import demangle
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
for line in sys.stdin.buffer:
    try:
        found = demangle(line[:-1].decode("ascii")) or ""
    except ValueError:
        found = ""
    found = "" if len(found) > {MAX_TEXT} else found
    sys.stdout.buffer.write(found.replace("\n", " ").encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()
"""
_MANGLED = re.compile(r"_(?:Z|R[A-Z]|__Z)[\w.$@]+", re.ASCII)
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_WORDS = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}
_RUST_ESCAPE = re.compile(r"\$(?:u([0-9a-f]{1,6})|(SP|BP|RF|LT|GT|LP|RP|C))\$|(\.\.)")


class _Helper:
    """The process that demangles, started with the first name; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def ask(self, name: str) -> str:
        """Return what *name* stands for, "" when that cannot be told."""
        with self._lock:
            if self._deaths >= MAX_DEATHS:
                return ""
            try:
                return self._ask(name)
            except (OSError, ValueError):
                self._stop()
                return ""
            except BaseException:  # Ctrl-C: its answer must not be taken for that of the next name
                self._stop()
                self._deaths -= 1
                raise

    def _ask(self, name: str) -> str:
        if self._process is None:
            self._process = _start()
        given, taken = self._process.stdin, self._process.stdout
        assert given is not None and taken is not None
        given.write(name.encode("ascii") + b"\n")
        given.flush()
        answer, until = b"", time.monotonic() + PATIENCE
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([taken], [], [], max(until - time.monotonic(), 0))
            part = os.read(taken.fileno(), 1 << 16) if ready else b""
            if not part:
                raise OSError("it has died, or does not answer")
            answer += part
        return answer[:-1].decode("utf-8", "replace")

    def _stop(self) -> None:
        self._deaths += 1
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError):  # what it has not read
                process.communicate()


_helper = _Helper()
os.register_at_fork(after_in_child=_helper.__init__)  # type: ignore[misc]


def _start() -> subprocess.Popen[bytes]:
    """:raises OSError: there is no Python to start"""
    if not os.path.basename(sys.executable or "").startswith("python") or getattr(sys, "frozen", False):
        raise OSError("no Python to start")
    path = "\n".join(part for part in sys.path if os.path.isabs(part))
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _PROGRAM, path], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")


@lru_cache(maxsize=1 << 16)
def demangled(name: str) -> str:
    """Return what the mangled *name* stands for; *name* itself when it is not mangled, or nobody knows."""
    if not name.startswith("_") or len(name) > MAX_NAME or not _MANGLED.fullmatch(name):
        return name
    found = _helper.ask(name)
    if found and name.startswith("_ZN") and _RUST_HASH.search(found):
        return _RUST_ESCAPE.sub(_rust, re.sub(r"(^|::)_\$", r"\1$", _RUST_HASH.sub("", found)))
    return found or name


def _rust(match: re.Match[str]) -> str:
    """Return what legacy names of Rust have for characters that assemblers do not take."""
    code, word, _ = match.groups()
    if code:
        number = int(code, 16)
        return chr(number) if 0x20 <= number < 0xD800 else match[0]
    return _RUST_WORDS[word] if word else "::"
