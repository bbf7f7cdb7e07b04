"""Bytes as a memory: a section of a file, at the address that it was linked at."""

from __future__ import annotations

from kshell.errors import Fault, Reason
from kshell.memory.model import Memory


class ByteMemory(Memory):
    """*data* from *start* on, and nothing else."""

    def __init__(self, data: bytes, start: int = 0, *, space: str = "object") -> None:
        self.data, self.start, self.space = data, start, space

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        at = address - self.start
        found = self.data[at : at + size] if at >= 0 else b""
        if len(found) == size:
            return found, None
        return found, Fault(address + len(found), size, Reason.NOT_MAPPED, partial=found, done=len(found),
                            space=self.space)
