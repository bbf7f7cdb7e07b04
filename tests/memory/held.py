"""A memory made of a few runs of bytes, with windows a page at a time as images have them."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import Fault, Reason
from kshell.memory.model import Memory, Range, Window

PAGE = 4096


class Held(Memory):
    """Runs of bytes by address; ``why`` tells of addresses that are absent for another reason than being outside."""

    def __init__(self, runs: dict[int, bytes], *, writable: bool = False, live: bool = False) -> None:
        self.runs = {start: bytearray(data) for start, data in sorted(runs.items())}
        self.writable, self.live = writable, live
        self.why: dict[int, Reason] = {}
        self.reads = 0

    def _run(self, address: int) -> tuple[int, bytearray] | None:
        for start, data in self.runs.items():
            if start <= address < start + len(data):
                return start, data
        return None

    def _fault(self, address: int, size: int, data: bytes, verb: str = "read") -> Fault:
        reason = self.why.get(address & -PAGE, Reason.OUTSIDE)
        return Fault(address, size, reason, partial=data if verb == "read" else b"", done=len(data), verb=verb)

    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        self.reads += 1
        found = b""
        while len(found) < size:
            run = self._run(address + len(found))
            if run is None:
                return found, self._fault(address + len(found), size, found)
            at = address + len(found) - run[0]
            found += bytes(run[1][at : at + size - len(found)])
        return found, None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not self.writable:
            super().write(address, data)
        for number, byte in enumerate(bytes(data)):
            run = self._run(address + number)
            if run is None:
                raise self._fault(address + number, len(data), bytes(data[:number]), "write")
            run[1][address + number - run[0]] = byte
            self.epoch.count += 1

    def window(self, address: int) -> Window | None:
        run = self._run(address)
        if run is None or self.live:
            return None
        start, end = max(address & -PAGE, run[0]), min((address & -PAGE) + PAGE, run[0] + len(run[1]))
        return Window(start, end, memoryview(bytes(run[1][start - run[0] : end - run[0]])))

    def ranges(self) -> Iterator[Range]:
        for start, data in self.runs.items():
            yield Range(start, start + len(data))
