"""The RAM of a running virtual machine, read and written behind its back: in QEMU's own memory, or in its memory file.

A guest's RAM is memory of the QEMU process (system/physmem.c: RAM blocks); which guest-physical addresses lie where in
it tells the monitor: ``info mtree -f`` the pieces of the flat view, ``gpa2hva`` where one begins. /proc/PID/mem takes
those host addresses as file offsets, and a memory-backend-file's blocks are offsets of that file, so both are files
with pieces in them. What the guest does meanwhile shows in what is read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kshell.errors import Fault, FormatError, Reason
from kshell.memory.file import FileMemory
from kshell.memory.segments import Piece, Segments

GIB = 1 << 30
MAX_PIECES = 1 << 12
_LINE = re.compile(r"^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom|romd)\): (.*?)(?: @([0-9a-f]{16}))?"
                   r"(?: KVM)?$", re.MULTILINE)


class RamPiece(NamedTuple):
    """Guest-physical ``start <= address < end`` is in RAM block ``block`` from ``offset`` on."""

    start: int
    end: int
    block: str
    offset: int
    writable: bool


def parse_mtree(text: str) -> list[RamPiece]:
    """Return the RAM and ROM that the guest's CPUs see, from ``info mtree -f``.

    :raises FormatError: the text tells of none
    """
    for view in text.replace("\r", "").split("FlatView #")[1:]:
        if '\n AS "memory"' in view:
            found = [RamPiece(int(row[1], 16), int(row[2], 16) + 1, row[4], int(row[5] or "0", 16), row[3] == "ram")
                     for row in _LINE.finditer(view)]
            if found and len(found) <= MAX_PIECES:
                return sorted(found)
    raise FormatError("info mtree -f tells of no RAM: this QEMU is not understood")


def split_ram(size: int, low: int) -> list[RamPiece]:
    """Return the pieces of a memory file of *size* bytes, of which *low* are below 4 GiB and the rest from there on."""
    pieces = [RamPiece(0, min(size, low), "ram", 0, True)]
    if size > low:
        pieces.append(RamPiece(4 * GIB, 4 * GIB + size - low, "ram", low, True))
    return pieces


def likely_splits(size: int) -> list[int]:
    """Return how many bytes may be below 4 GiB, the likeliest first: QEMU's machines pc and q35.

    hw/i386/pc_piix.c and pc_q35.c, "lowmem": RAM that does not fit below the PCI hole is cut at 3 GiB (pc) or 2 GiB
    (q35), so that what is above 4 GiB begins at a gigabyte.
    """
    splits = [0xE000_0000 if size < 0xE000_0000 else 3 * GIB, 0xB000_0000 if size < 0xB000_0000 else 2 * GIB]
    return list(dict.fromkeys(min(size, split) for split in splits))


class GuestRam(FileMemory):
    """Guest-physical memory in an open file.

    :param pieces: of the guest's address space; *places* gives the file offset at which each begins
    :param still: whether the guest stands still now, so that what is read may be kept
    :param gone: why a read moved nothing, for messages
    """

    def __init__(
        self, path: str, descriptor: int, pieces: Iterable[RamPiece], places: Iterable[int], *, writable: bool = False,
        still: Callable[[], bool] = lambda: False, gone: str = "the virtual machine has quit",
    ) -> None:
        self.pieces, self._still, self._gone = list(pieces), still, gone
        held = [Piece(piece.start, piece.end, at) for piece, at in zip(self.pieces, places, strict=True)]
        super().__init__(path, descriptor, Segments(held), writable=writable, live=True)

    @property
    def moving(self) -> bool:
        return not self._still()

    def _shorter_than(self, end: int) -> bool:
        status = os.fstat(self._fd)
        return stat.S_ISREG(status.st_mode) and status.st_size > 0 and status.st_size < end

    def _failed(
        self, address: int, size: int, done: int, error: OSError | None, offset: int, verb: str = "read",
    ) -> Fault:
        if error is None or error.errno in (errno.ESRCH, errno.EIO, errno.EFAULT):
            return Fault(address, size, Reason.GONE, done=done, space=self.space, verb=verb, detail=self._gone)
        return super()._failed(address, size, done, error, offset, verb)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        end = address + len(view)
        for piece in self.pieces:
            if not piece.writable and piece.start < end and address < piece.end:
                stop = max(piece.start, address)
                if stop > address:
                    super().write(address, view[: stop - address])
                raise Fault(stop, len(view), Reason.READ_ONLY, done=stop - address, space=self.space, verb="write",
                            detail=f"the guest's ROM {piece.block}")
        super().write(address, view)


def layout(pieces: Iterable[RamPiece]) -> str:
    """Return one line that tells where the RAM is: ``0-c0000000 and 100000000-140000000``."""
    runs: list[list[int]] = []
    for piece in pieces:
        if runs and runs[-1][1] == piece.start:
            runs[-1][1] = piece.end
        else:
            runs.append([piece.start, piece.end])
    return ", ".join(f"{start:x}-{end:x}" for start, end in runs)


def open_process_memory(pid: int, writable: bool) -> int:
    """Return a descriptor of /proc/PID/mem. :raises OSError: it may not be opened"""
    return os.open(f"/proc/{pid}/mem", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
