"""The symbols of a vmlinux as plain arrays, kept in the cache: making rows of 200,000 takes most of a second."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kshell import cache
from kshell.types.elffile import ElfFile, Section
from kshell.types.kallsyms import TOP, Encoding, Kallsyms
from kshell.types.names_table import NamesTable

if TYPE_CHECKING:
    from typing import Self

KIND, VERSION = "symtab", 1
WORTH_KEEPING = 1 << 20  # bytes of .symtab
SAMPLE = 4096

#: value, size, letter of nm, name
Row = tuple[int, int, str, str]


class LinkedSymbols(Kallsyms):
    """Symbols in the order of their addresses, those of the kernel's half ``offset`` bytes from where they were linked.

    Absolute ones, per-CPU offsets above all, stay.
    """

    def __init__(
        self, names: NamesTable, letters: bytes | memoryview, values: Sequence[int], offset: int = 0,
    ) -> None:
        super().__init__(names, letters, values, Encoding.ABSOLUTE)
        self.offset = offset

    @classmethod
    def of(cls, rows: list[Row]) -> Self:
        """Make the table of *rows*."""
        rows = sorted(rows, key=lambda row: row[0])
        names = NamesTable.of([row[3].encode("utf-8", "surrogateescape") for row in rows])
        return cls(names, "".join(row[2] for row in rows).encode("latin-1"), array("Q", [row[0] for row in rows]))

    def moved(self, offset: int) -> LinkedSymbols:
        """Return the same symbols *offset* bytes from where they were linked (KASLR)."""
        return LinkedSymbols(self.names, self.letters, self.values, offset)

    def address(self, number: int) -> int:
        value = self.values[number]
        return (value + self.offset) % TOP if value >> 63 else value

    def pack(self) -> list[bytes]:
        """Return the parts that :meth:`unpack` reads."""
        count = len(self.values)
        packed = [struct.pack("<Q", count), array("Q", self.values).tobytes(), bytes(self.letters), bytes(-count % 8)]
        return [*packed, *self.names.pack()]

    @classmethod
    def unpack(cls, data: memoryview) -> LinkedSymbols:
        """Return the table at the start of *data*.

        :raises ValueError: the sizes do not fit
        """
        if len(data) < 8:
            raise ValueError("a table of symbols that is cut")
        count = struct.unpack_from("<Q", data)[0]
        letters, names = 8 + 8 * count, 8 + 9 * count + -count % 8
        if names > len(data):
            raise ValueError("a table of symbols that is longer than its file")
        table, _ = NamesTable.unpack(data[names:])
        if len(table) != count:
            raise ValueError("a table of symbols with other names")
        return cls(table, data[letters : letters + count], data[8:letters].cast("Q"))


def key_of(elf: ElfFile, table: Section, strings: Section) -> str | None:
    """Return the key of the symbols in *table* of *elf*; None where they are few, or nothing says which build it is."""
    if elf.build_id is None or table.size < WORTH_KEEPING:
        return None
    parts = [struct.pack("<5Q", elf.size, table.offset, table.size, strings.offset, strings.size)]
    for one in (table, strings):
        parts += [elf.pread(SAMPLE, one.offset), elf.pread(SAMPLE, one.offset + max(one.size - SAMPLE, 0))]
    return f"{elf.build_id}-{cache.key_of(*parts)}"


def load(key: str) -> LinkedSymbols | None:
    """Return what :func:`keep` kept under *key*, None when it is not there."""
    data = cache.load(KIND, key, VERSION)
    try:
        return None if data is None else LinkedSymbols.unpack(data)
    except (ValueError, TypeError, struct.error):
        return None


def keep(key: str, table: LinkedSymbols) -> None:
    """Keep *table* on disk."""
    cache.store(KIND, key, VERSION, *table.pack())
