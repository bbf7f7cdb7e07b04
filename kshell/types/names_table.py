"""A table of names: a blob, where each name lies in it, and an order by name. Searched without making strings.

Shared by the sources that keep many names (kallsyms, BTF); the three parts are plain arrays, so that they can be kept
in the disk cache as they are. Names are bytes here and strings outside.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import cast

_HEAD = struct.Struct("<QQ")


class NamesTable:
    """*n* names: number ``i`` is ``blob[starts[i]:starts[i + 1]]``; ``order`` lists the numbers sorted by name."""

    def __init__(self, blob: bytes | memoryview, starts: Sequence[int], order: Sequence[int]) -> None:
        self.blob, self.starts, self.order = blob, starts, order

    @classmethod
    def of(cls, names: list[bytes] | list[str]) -> NamesTable:
        """Make a table of *names*; equal names keep their order. Strings have a character for each byte (latin-1).

        Python sorts strings faster than bytes.
        """
        starts = array("I", accumulate(map(len, names), initial=0))
        order = array("I", sorted(range(len(names)), key=names.__getitem__))
        if names and isinstance(names[0], str):
            return cls("".join(names).encode("latin-1"), starts, order)
        return cls(b"".join(cast("list[bytes]", names)), starts, order)

    def __len__(self) -> int:
        return len(self.order)

    def bytes_at(self, number: int) -> bytes:
        return bytes(self.blob[self.starts[number] : self.starts[number + 1]])

    def name(self, number: int) -> str:
        """Return name *number* as text."""
        return self.bytes_at(number).decode("utf-8", "replace")

    def _sorted(self, position: int) -> bytes:
        return self.bytes_at(self.order[position])

    def find(self, name: str) -> list[int]:
        """Return the numbers of the names equal to *name*, ascending."""
        key = name.encode("utf-8", "surrogateescape")
        positions = range(len(self.order))
        at = bisect_left(positions, key, key=self._sorted)
        found: list[int] = []
        while at < len(self.order) and self._sorted(at) == key:
            found.append(self.order[at])
            at += 1
        return found

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* different names that begin with *prefix*, sorted."""
        key = prefix.encode("utf-8", "surrogateescape")
        at = bisect_left(range(len(self.order)), key, key=self._sorted)
        found: list[str] = []
        while at < len(self.order) and len(found) < limit:
            name = self._sorted(at)
            if not name.startswith(key):
                break
            text = name.decode("utf-8", "replace")
            if not found or found[-1] != text:
                found.append(text)
            at += 1
        return found

    def __iter__(self) -> Iterator[str]:
        return (self.name(number) for number in range(len(self.order)))

    def pack(self) -> list[bytes]:
        """Return the parts that :meth:`unpack` reads."""
        starts, order = array("I", self.starts).tobytes(), array("I", self.order).tobytes()
        return [_HEAD.pack(len(self.order), len(self.blob)), starts, order, bytes(self.blob)]

    @classmethod
    def unpack(cls, data: memoryview) -> tuple[NamesTable, memoryview]:
        """Return the table at the start of *data* and what follows it (aligned as *data* was, when that was by 4).

        :raises ValueError: the sizes do not fit
        """
        count, size = _HEAD.unpack_from(data)
        at = _HEAD.size
        ends = (at + 4 * (count + 1), at + 4 * (2 * count + 1), at + 4 * (2 * count + 1) + size)
        if ends[2] > len(data):
            raise ValueError("a table of names that is longer than its file")
        starts, order = data[at : ends[0]].cast("I"), data[ends[0] : ends[1]].cast("I")
        return cls(data[ends[1] : ends[2]], starts, order), data[ends[2] :]
