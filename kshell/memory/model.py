"""What every memory offers: reads that never make up bytes, bulk reads, windows without a copy, and writes.

A *memory* is a flat space of bytes, some of them absent. Image formats serve physical bytes, processes virtual ones,
and an address space over page tables (:mod:`kshell.target.space`) is a memory again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from kshell.errors import Fault, Reason

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Addresses = Sequence[int] | numpy.typing.NDArray[numpy.uint64]

TOP = 1 << 64


class Range(NamedTuple):
    """A run of addresses. ``held`` tells whether the memory has the bytes; if not, ``reason`` says why."""

    start: int
    end: int
    held: bool = True
    reason: Reason | None = None


class Window(NamedTuple):
    """Bytes that may be looked at again and again: ``view[address - start]`` for ``start <= address < end``.

    Good until the next write or flush of its memory (:class:`Epoch`). Looking never faults.
    """

    start: int
    end: int
    view: memoryview


class FileRun(NamedTuple):
    """Addresses ``start <= address < end`` are the bytes of an open file: ``pread(descriptor, n, address + delta)``."""

    start: int
    end: int
    descriptor: int
    delta: int


class Epoch:
    """How often a memory was written or flushed: whoever keeps bytes of it compares ``count`` before using them."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Gathered(NamedTuple):
    """The result of a gather: ``data`` is uint8[n, size]; ``ok`` is bool[n]; rows that are not ok hold no answer."""

    data: numpy.typing.NDArray[numpy.uint8]
    ok: numpy.typing.NDArray[numpy.bool_]


class Memory(ABC):
    """A space of bytes. Addresses and sizes are bytes; an address is ``0 <= address < 2**64``."""

    #: the word for this space in messages: "physical", "kernel", "user"
    space: str = "physical"
    #: whether :meth:`write` may change bytes
    writable: bool = False
    #: why nobody can write it, and what works instead; "" where writing was only not asked for
    why_not_writable: str = ""

    @property
    def moving(self) -> bool:
        """Whether the bytes may change by themselves now: a target that runs."""
        return False

    @abstractmethod
    def read_upto(self, address: int, size: int) -> tuple[bytes, Fault | None]:
        """Return the bytes held from *address* on without a gap, at most *size*, and the fault that ended them.

        The fault is None exactly when *size* bytes are returned. Reads of 0 bytes succeed anywhere. Never wraps
        past the top of the space.
        """

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes at *address*.

        :raises Fault: unless all of them are held; carries the bytes before the gap and the reason
        """
        data, fault = self.read_upto(address, size)
        if fault is not None:
            raise fault
        return data

    def read_into(self, address: int, buffer: memoryview) -> Fault | None:
        """Fill *buffer* (writable, of bytes) from *address* on; the bytes past a gap stay as they were.

        Returns the fault that ended it, with ``done`` and no ``partial``, or None when all of it was filled.
        """
        data, fault = self.read_upto(address, len(buffer))
        buffer[: len(data)] = data
        return fault

    def check(self) -> None:
        """Look whether what lies below is still as it was opened; called before each command.

        :raises FormatError: it changed so that reading would be unsafe or would mix two images
        """
        return

    @cached_property
    def epoch(self) -> Epoch:
        """The count of writes and flushes. A memory over another one shares the lower one's."""
        return Epoch()

    def flush(self) -> None:
        """Forget what was kept of a memory that changes by itself: the live target has moved."""
        self.epoch.count += 1

    def window(self, address: int) -> Window | None:
        """Return a run of bytes around *address* (an image: its page) that may be kept until :attr:`epoch` counts on.

        None where the memory has no such run, or may change by itself (a live target).
        """
        return None

    def file_run(self, address: int) -> FileRun | None:
        """Return the run of an open file whose bytes are those around *address*, or None when no file says it all."""
        return None

    def view(self, address: int, size: int) -> memoryview | bytes:
        """Return *size* bytes at *address*, without a copy where one window holds them.

        :raises Fault: as :meth:`read`
        """
        window = self.window(address)
        if window is not None and address + size <= window.end:
            offset = address - window.start
            return window.view[offset : offset + size]
        return self.read(address, size)

    def u64(self, address: int) -> int:
        """Return the little-endian unsigned 64-bit number at *address*.

        :raises Fault: as :meth:`read`
        """
        return int.from_bytes(self.read(address, 8), "little")

    def u32(self, address: int) -> int:
        """Return the little-endian unsigned 32-bit number at *address*.

        :raises Fault: as :meth:`read`
        """
        return int.from_bytes(self.read(address, 4), "little")

    def gather(self, addresses: Addresses, size: int) -> Gathered:
        """Read *size* bytes at each of *addresses*: one row an address. Imports numpy.

        A row that is not ok can be read alone to learn why. This one reads one by one; memories that can, do better.
        """
        import numpy as np

        data = np.zeros((len(addresses), size), np.uint8)
        ok = np.zeros(len(addresses), np.bool_)
        for row, address in enumerate(addresses):
            piece, fault = self.read_upto(int(address), size)
            if fault is None:
                data[row] = np.frombuffer(piece, np.uint8)
                ok[row] = True
        return Gathered(data, ok)

    def read_many(self, addresses: Sequence[int], size: int) -> list[bytes | None]:
        """Read *size* bytes at each of *addresses*, without numpy; None where they are not all held.

        A row that is None can be read alone to learn why. For thousands of rows; :meth:`gather` is for more.
        """
        pieces = (self.read_upto(address, size) for address in addresses)
        return [data if fault is None else None for data, fault in pieces]

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write *data* at *address*.

        :raises Fault: when not all could be written; ``done`` bytes before ``address`` were, and stay written
        """
        raise Fault(address, len(data), Reason.READ_ONLY, space=self.space, verb="write")

    def ranges(self) -> Iterator[Range]:
        """Yield what is known of the space in ascending order, held or not. May be empty when nothing is known."""
        return iter(())

    def close(self) -> None:  # noqa: B027 (optional to override)
        """Release files and mappings. A second close does nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def merge_ranges(ranges: Iterable[Range]) -> Iterator[Range]:
    """Join neighbours that say the same; *ranges* are ascending and do not overlap."""
    last: Range | None = None
    for item in ranges:
        if last is not None and last.end == item.start and (last.held, last.reason) == (item.held, item.reason):
            last = Range(last.start, item.end, item.held, item.reason)
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last
