"""The constant data of a kernel behind a slow transport: large reads are kept on disk, by build id and place.

What is kept is looked at in a few places before it is believed: there it must be what the machine has.
"""

from __future__ import annotations

from kshell import cache
from kshell.errors import Fault
from kshell.memory.model import Memory

VERSION = 1
LARGE = 64 << 10  # smaller reads are as quick as the look
PROBES, PROBE = 9, 256


class Constants(Memory):
    """The kernel's memory, for what is constant in it: tables of symbols and types.

    :param below: the kernel's virtual memory
    :param build_id: of the kernel, in hexadecimal; its image begins at *start*
    """

    def __init__(self, below: Memory, build_id: str, start: int) -> None:
        self.below, self.space = below, below.space
        self._build_id, self._start = build_id, start

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        if size < LARGE:
            return self.below.read_upto(address, size)
        key = f"{self._build_id}-{address - self._start:x}-{size:x}"
        kept = cache.load("constants", key, VERSION)
        if kept is not None and len(kept) == size and self._is_so(kept, address):
            return bytes(kept), None
        data, fault = self.below.read_upto(address, size)
        if fault is None:
            cache.store("constants", key, VERSION, data)
        return data, fault

    def _is_so(self, kept: memoryview, address: int) -> bool:
        """Whether the machine has the bytes of *kept* at its beginning, its end and in between."""
        step = (len(kept) - PROBE) // (PROBES - 1)
        places = [step * number for number in range(PROBES - 1)] + [len(kept) - PROBE]
        seen = self.below.read_many([address + place for place in places], PROBE)
        return all(data == bytes(kept[place : place + PROBE]) for place, data in zip(places, seen, strict=True))
