"""/proc/kallsyms of the running system, kernel and modules. proc(5); kernel/kallsyms.c (``kallsyms_show_value``)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import IO

from kshell.errors import FormatError
from kshell.types.kallsyms import MAX_SYMBOL_SIZE, covering, rodata_of
from kshell.types.model import Symbol

MAX_LINE = 1024  # a name has 511 characters at most (KSYM_NAME_LEN)
MAX_ROWS = 1 << 22


class SymbolList:
    """Symbols given as (address, letter, name, module), ordered by address: a SymbolSource over plain lists."""

    def __init__(self, rows: list[tuple[int, str, str, str | None]]) -> None:
        self._rows = sorted(rows, key=lambda row: row[0])
        self._addresses = [row[0] for row in self._rows]
        self._numbers: dict[str, list[int]] = {}
        for number, row in enumerate(self._rows):
            self._numbers.setdefault(row[2], []).append(number)
        self._names: list[str] | None = None
        self._rodata: tuple[int, int] | None = None

    def moved(self, offset: int) -> SymbolList:
        """Return these symbols *offset* bytes further (KASLR); absolute ones, below the kernel's half, stay."""
        return SymbolList([
            ((address + offset) % (1 << 64) if address >> 63 else address, letter, name, module)
            for address, letter, name, module in self._rows
        ])

    def _symbol(self, number: int) -> Symbol:
        address, letter, name, module = self._rows[number]
        beyond = bisect_right(self._addresses, address)
        size = 0
        if beyond < len(self._rows) and (self._addresses[beyond] >> 63) == (address >> 63):
            size = min(self._addresses[beyond] - address, MAX_SYMBOL_SIZE)
        return Symbol(name, address, size, letter, module)

    def find(self, name: str) -> list[Symbol]:
        return [self._symbol(number) for number in self._numbers.get(name, ())]

    def lowest(self) -> int:
        """Return an address below which no symbol lies."""
        return self._addresses[0] if self._addresses else 1 << 64

    def at(self, address: int) -> Symbol | None:
        if self._rodata is None:
            self._rodata = rodata_of(self.find)
        return covering(self.below(address), address, self._rodata)

    def below(self, address: int, lowest: int = 0) -> Symbol | None:
        """Return the closest symbol not above *address*, whatever its size; None for one that is below *lowest*."""
        position = bisect_right(self._addresses, address) - 1
        if position < 0 or address < lowest:
            return None
        return self._symbol(bisect_left(self._addresses, self._addresses[position]))

    def starting(self, prefix: str, limit: int) -> list[str]:
        if self._names is None:
            self._names = sorted(self._numbers)
        at = bisect_left(self._names, prefix)
        found = self._names[at : at + limit]
        return [name for name in found if name.startswith(prefix)]

    def __iter__(self) -> Iterator[Symbol]:
        return map(self._symbol, range(len(self._rows)))

    def __len__(self) -> int:
        return len(self._rows)


def read_proc_kallsyms(path: str) -> SymbolList:
    """Read *path*, or a System.map, which has the same lines without modules.

    :raises FormatError: it cannot be read, or the kernel hides the addresses (kernel.kptr_restrict)
    """
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return SymbolList(_rows(path, file))
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}") from error


def _rows(path: str, file: IO[str]) -> list[tuple[int, str, str, str | None]]:
    rows: list[tuple[int, str, str, str | None]] = []
    while line := file.readline(MAX_LINE):  # what is no such file is told by its first line, however long it is
        words = line.split()
        try:
            rows.append((int(words[0], 16), words[1], words[2], words[3].strip("[]") if len(words) > 3 else None))
        except (IndexError, ValueError) as error:
            raise FormatError(f"{path}: not a line of symbols: {line[:60]!r}") from error
        if len(rows) > MAX_ROWS:
            raise FormatError(f"{path}: more than {MAX_ROWS} lines of symbols")
    if not rows:
        raise FormatError(f"{path} has no symbols: it is empty")
    if not any(row[0] for row in rows):
        raise FormatError(f"{path} shows no addresses to this user", hint="be root, or set kernel.kptr_restrict = 0")
    return rows
