"""The constant data of a kernel behind a slow transport or in a compressed dump: kept on disk, by place.

What is kept is looked at in a few places before it is believed: there it must be what the machine has. Its hash, by
which indexes of it are known, is kept with it.
"""

from __future__ import annotations

from kshell import cache
from kshell.errors import Fault
from kshell.memory.model import Memory

VERSION = 2
LARGE = 64 << 10  # smaller reads are as quick as the look
PROBES, PROBE = 9, 256
DIGEST = 40  # hexadecimal digits of cache.key_of(), before the bytes


class Constants(Memory):
    """The kernel's memory, for what is constant in it: tables of symbols and types.

    :param below: the kernel's virtual memory
    :param kernel: by what it is known again, in hexadecimal: its build id, or the file it is in
    :param start: from where places are counted
    """

    def __init__(self, below: Memory, kernel: str, start: int) -> None:
        self.below, self.space = below, below.space
        self._kernel, self._start = kernel, start

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if size < LARGE:
            return self.below.read_upto(address, size)
        kept = self._kept(address, size)
        if kept is not None:
            return bytes(kept[DIGEST:]), None
        data, fault = self.below.read_upto(address, size)
        if fault is None:
            self._keep(address, data)
        return data, fault

    def content(self, address: int, size: int) -> tuple[memoryview | bytes, str]:
        """Return *size* bytes at *address*, and their :func:`kshell.cache.key_of`.

        :raises Fault: as :meth:`read`
        """
        kept = self._kept(address, size)
        if kept is not None:
            return kept[DIGEST:], str(kept[:DIGEST], "ascii")
        data = self.below.read(address, size)
        return data, self._keep(address, data)

    def _key(self, address: int, size: int) -> str:
        return f"{self._kernel}-{address - self._start:x}-{size:x}"

    def _keep(self, address: int, data: bytes) -> str:
        digest = cache.key_of(data)
        cache.store("constants", self._key(address, len(data)), VERSION, digest.encode(), data)
        return digest

    def _kept(self, address: int, size: int) -> memoryview | None:
        """Return the digest and the bytes that are kept, None where there are none or the machine has others."""
        kept = cache.load("constants", self._key(address, size), VERSION) if size >= PROBE else None
        return kept if kept is not None and len(kept) == DIGEST + size and self._is_so(kept[DIGEST:], address) else None

    def _is_so(self, kept: memoryview, address: int) -> bool:
        """Whether the machine has the bytes of *kept* at its beginning, its end and in between."""
        step = (len(kept) - PROBE) // (PROBES - 1)
        places = [step * number for number in range(PROBES - 1)] + [len(kept) - PROBE]
        seen = self.below.read_many([address + place for place in places], PROBE)
        return all(data == bytes(kept[place : place + PROBE]) for place, data in zip(places, seen, strict=True))
