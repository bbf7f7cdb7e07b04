"""The symbols of one program, library or object file, sizes included, read when they are first needed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from kshell.types.model import Symbol

#: symbols before an address that are looked at for one that covers it: small ones lie inside large ones
BACK = 32


class ObjectSymbols:
    """Symbols between *start* and *end*, a SymbolSource.

    :param read: gives them; called once
    """

    def __init__(self, start: int, end: int, read: Callable[[], list[Symbol]]) -> None:
        self.start, self.end, self._read = start, end, read
        self._all: list[Symbol] | None = None
        self._starts: list[int] = []
        self._by_name: dict[str, list[Symbol]] = {}
        self._names: list[str] | None = None

    @property
    def symbols(self) -> list[Symbol]:
        """All symbols, ascending; of several at one address the best name first: global, typed, not hidden by _."""
        if self._all is None:
            found = sorted(self._read(), key=_rank)
            self._starts = [symbol.address for symbol in found]
            for symbol in found:
                self._by_name.setdefault(symbol.name, []).append(symbol)
            self._all = found
        return self._all

    def find(self, name: str) -> list[Symbol]:
        """Return the symbols of this name, global ones first."""
        self.symbols  # noqa: B018 - reads them
        found = self._by_name.get(name, [])
        return sorted(found, key=lambda symbol: symbol.type.islower()) if len(found) > 1 else found

    def lowest(self) -> int:
        """Return an address below which no symbol lies."""
        return self.start

    def at(self, address: int) -> Symbol | None:
        """Return the symbol that covers *address*: the closest, of several at one address the best name."""
        if not self.start <= address < self.end:
            return None
        symbols = self.symbols
        beyond = bisect_right(self._starts, address)
        best: Symbol | None = None
        for symbol in reversed(symbols[max(beyond - BACK, 0) : beyond]):
            if best is not None and symbol.address != best.address:
                break
            if symbol.type in "aA":
                continue
            if address < symbol.address + symbol.size or (not symbol.size and self._reaches(symbol, address, beyond)):
                best = symbol
        return best

    def _reaches(self, symbol: Symbol, address: int, beyond: int) -> bool:
        """Whether a symbol without a size, of an assembler, reaches *address*: up to the next one, if it is code."""
        return symbol.address == address or (symbol.type in "tT" and self._starts[beyond - 1] == symbol.address)

    def starting(self, prefix: str, limit: int) -> list[str]:
        """Return at most *limit* names that begin with *prefix*, sorted."""
        if self._names is None:
            self.symbols  # noqa: B018
            self._names = sorted(self._by_name)
        at = bisect_left(self._names, prefix)
        return [name for name in self._names[at : at + limit] if name.startswith(prefix)]

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self.symbols)

    def __len__(self) -> int:
        return len(self.symbols)


def _rank(symbol: Symbol) -> tuple[int, bool, bool, int, str]:
    underscores = len(symbol.name) - len(symbol.name.lstrip("_"))
    return symbol.address, not symbol.size, symbol.type.islower(), underscores, symbol.name
