"""Reading as much as there is: the bytes up to the first one that the target does not hold, and why it does not."""

from __future__ import annotations

from collections.abc import Callable

from kshell.errors import Fault, KshellError

#: ``read(address, size)`` returns exactly *size* bytes or raises a KshellError.
Read = Callable[[int, int], bytes]


def read_prefix(read: Read, address: int, size: int, unit: int = 1) -> tuple[bytes, KshellError | None]:
    """Return the readable bytes from *address* on, at most *size*, and the error that stopped it if it is less.

    :param unit: *size* is a multiple of it; only whole units are returned
    """
    try:
        return read(address, size), None
    except Fault as fault:
        error: KshellError = fault
        if fault.address == address + fault.done and len(fault.partial) == fault.done < size:
            return fault.partial[: fault.done - fault.done % unit], fault
    except KshellError as other:
        error = other
    # An error that does not say how far it got: halve until one unit is left.
    parts: list[bytes] = []
    low, high = 0, size
    while high - low > unit:
        middle = low + max((high - low) // (2 * unit), 1) * unit
        try:
            parts.append(read(address + low, middle - low))
        except KshellError as narrower:
            error, high = narrower, middle
        else:
            low = middle
    return b"".join(parts), error


class Window:
    """Reads ahead, but only what will be read anyway: up to *extent* bytes from *start*.

    What can be read is found page by page, so a fault ahead costs nothing that is asked for before it.
    """

    def __init__(self, read: Read, start: int, extent: int) -> None:
        self._read, self._end = read, start + extent
        self._start, self._data = 0, b""
        self._grow = 64

    def read(self, address: int, size: int) -> bytes:
        """Return exactly *size* bytes or raise what the target raised."""
        offset = address - self._start
        if offset >= 0 and offset + size <= len(self._data):
            return self._data[offset : offset + size]
        want = min(self._grow, self._end - address)
        if want > size:
            try:
                self._start, self._data = address, self._read(address, want)
            except KshellError:
                self._data, self._grow = b"", 64
            else:
                self._grow = min(self._grow * 4, 1 << 16)
                return self._data[:size]
        return self._read(address, size)
