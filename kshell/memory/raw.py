"""Raw physical memory: a file that is the bytes and nothing else, as QEMU's pmemsave or dd writes it.

The byte at offset N is that of the physical address N, or of ``phys_base + N``, or where a map says. A map has lines as
in /proc/iomem: first and last address in hexadecimal, and, where it is not plain, the offset in the file.
"""

from __future__ import annotations

import os
import re

from kshell.arch.x86_64 import X86_64
from kshell.errors import OpenError, Reason
from kshell.memory.file import open_file, size_of
from kshell.memory.fileimage import FileImage
from kshell.memory.segments import Piece, Segments

MAX_MAP = 1 << 20  # bytes of a map file
LINE = re.compile(r"(?:0x)?([0-9a-f]{1,16})-(?:0x)?([0-9a-f]{1,16})(?:\s*@?\s*(?:0x)?([0-9a-f]{1,16}))?"
                  r"\s*(?::\s*(.*))?$", re.IGNORECASE)


class Raw(FileImage):
    """The physical memory in a raw file. Made by :func:`open_raw`."""

    def __init__(self, path: str, descriptor: int, pieces: list[Piece], how: str, *, writable: bool = False) -> None:
        super().__init__(path, descriptor, Segments(pieces), writable=writable)
        self.arch, self._how = X86_64(), how

    @property
    def complete(self) -> str | None:
        """What the map tells of and the file does not have."""
        lost = self._segments.total() - self._segments.held()
        return f"the file ends early: {lost} bytes of memory ({lost / (1 << 20):.1f} MiB) missing" if lost else None

    def describe(self) -> str:
        """Return one line: where its first byte belongs, and its size."""
        return f"raw physical memory ({self._how}), {self._segments.total() / (1 << 20):.0f} MiB"


def open_raw(path: str, mode: str = "r", phys_base: int = 0, map: str | None = None) -> Raw:
    """Open raw physical memory; mode "r" or "r+".

    :param phys_base: the physical address of the file's first byte
    :param map: a file that tells which runs of memory the file has
    :raises OpenError: one of the files cannot be read, or the map does not fit the file
    """
    descriptor = open_file(path, mode)
    try:
        size = size_of(descriptor)
    except OSError as error:  # a pipe
        raise OpenError(path, f"cannot be read: {error.strerror}", kind="format") from error
    try:
        if map is not None:
            pieces, how = read_map(map, size)
        elif not 0 <= phys_base < 1 << 56:
            raise OpenError(path, f"its first byte cannot be at the physical address 0x{phys_base:x}", kind="format")
        else:
            pieces, how = [Piece(phys_base, phys_base + size, 0)], f"from 0x{phys_base:x} on"
        return Raw(path, descriptor, pieces, how, writable=mode == "r+")
    except BaseException:
        import os

        os.close(descriptor)
        raise


def _at_once(path: str, flags: int) -> int:
    """Open *path* without waiting for who writes into it, should it be a pipe: that has nothing in it then."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_map(path: str, size: int) -> tuple[list[Piece], str]:
    """Return the runs that the map at *path* tells of a file of *size* bytes, and in words how they lie in it.

    Of the lines of /proc/iomem those of System RAM count. Without offsets the runs lie at their addresses when the
    file is long enough for that, or one behind the other when their sizes add up to the file's.

    :raises OpenError: it cannot be read, a line is wrong, or it does not fit
    """
    try:
        with open(path, encoding="utf-8", errors="replace", opener=_at_once) as file:
            text = file.read(MAX_MAP)
    except OSError as error:
        raise OpenError(path, f"the map cannot be read: {error.strerror}", kind="missing") from error
    rows: list[tuple[int, int, int | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].rstrip()
        if not content or content[0] in " \t":  # what lies inside a run of /proc/iomem
            continue
        found = LINE.match(content)
        if found is None or int(found[2], 16) < int(found[1], 16):
            raise OpenError(path, f"line {number} of the map is no run of memory: {content[:60]!r}", kind="format",
                            hint="FIRST-LAST [OFFSET] in hexadecimal, as in /proc/iomem")
        if found[4] is None or found[4].strip() == "System RAM":
            rows.append((int(found[1], 16), int(found[2], 16) + 1, int(found[3], 16) if found[3] else None))
    if not rows:
        raise OpenError(path, "the map tells of no memory", kind="format")
    if all(row[0] == 0 and row[1] == 1 for row in rows):
        raise OpenError(path, "the map's addresses are all 0: /proc/iomem shows them to root only", kind="permission")
    told = [row[2] is not None for row in rows]
    if any(told):
        if not all(told):
            raise OpenError(path, "some lines of the map have an offset and some have none", kind="format")
        pieces, how = [(start, end, at or 0) for start, end, at in rows], "by a map with offsets"
    elif sum(end - start for start, end, _ in rows) == size:
        pieces, how, at = [], "by a map, runs one behind the other", 0
        for start, end, _ in rows:
            pieces.append((start, end, at))
            at += end - start
    elif max(end for _, end, _ in rows) <= size:
        pieces, how = [(start, end, start) for start, end, _ in rows], "by a map, addresses are offsets"
    else:
        raise OpenError(path, f"the map does not fit the file: its runs have "
                        f"{sum(end - start for start, end, _ in rows)} bytes and end at "
                        f"0x{max(end for _, end, _ in rows):x}, the file has {size}", kind="format",
                        hint="write the offsets of the runs in the file behind them")
    made: list[Piece] = []
    for start, end, at in pieces:
        held = max(0, min(end - start, size - at))
        made += [Piece(start, start + held, at), Piece(start + held, end, 0, Reason.TRUNCATED)]
    return made, how
