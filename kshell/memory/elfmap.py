"""The bytes of an executable, a library or an object file by the addresses that its headers give them.

System V ABI chapter 5: a segment longer in memory than in the file ends with zeroes. Object files have no segments:
their sections lie where :mod:`kshell.types.elffile` places them.
"""

from __future__ import annotations

import os

from kshell.errors import OpenError, Reason
from kshell.memory.file import FileMemory, size_of
from kshell.memory.layered import Backing, Layered, Zeroes
from kshell.memory.segments import Piece, Segments

TOP = 1 << 64
Part = tuple[int, int, int, int]  # address, bytes in the file, bytes in memory, offset


class Parts(Layered):
    """What :func:`open_parts` opens; ``file`` are the bytes that are in the file."""

    def __init__(self, file: FileMemory, zeroes: list[Backing]) -> None:
        super().__init__(file, zeroes)
        self.file = file


def open_parts(path: str, parts: list[Part], *, bias: int = 0, writable: bool = False, space: str = "user") -> Parts:
    """Return the memory of the *parts* of the file at *path*, moved by *bias*; closing it closes the file.

    :raises OpenError: the file cannot be opened; for writing, where *writable*
    """
    try:
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        busy = "it runs: a file that is executed cannot be written" if error.errno == 26 else error.strerror
        verb = "opened for writing" if writable else "opened"
        raise OpenError(path, f"cannot be {verb}: {busy}", kind="permission",
                        hint="--cow keeps writes in memory instead" if writable else None) from error
    pieces: list[Piece] = []
    zeroes: list[Backing] = []
    size = size_of(descriptor)
    nothing = Zeroes(space)
    for address, held, total, offset in parts:
        start = (address + bias) % TOP
        total = min(total, TOP - start)
        held = min(held, total)
        present = max(0, min(held, size - offset))
        pieces += [Piece(start, start + present, offset), Piece(start + present, start + held, 0, Reason.TRUNCATED)]
        if total > held:
            zeroes.append(Backing(start + held, start + total, nothing))
    memory = FileMemory(path, descriptor, Segments(pieces), space=space, writable=writable, beyond=Reason.NOT_MAPPED)
    return Parts(memory, _disjoint(zeroes))


def _disjoint(backings: list[Backing]) -> list[Backing]:
    """Leave out what damaged headers say twice."""
    found: list[Backing] = []
    for backing in sorted(backings, key=lambda one: one.start):
        if not found or backing.start >= found[-1].end:
            found.append(backing)
    return found
