"""Symbols that the user adds: a source that is asked before all others (``::nmadd``, mdb-language.md 11.7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kshell.types.model import Symbol


class PrivateSymbols:
    """Symbols by name; one of size 0 covers its own address only."""

    def __init__(self) -> None:
        self._symbols: dict[str, Symbol] = {}

    def add(self, symbol: Symbol) -> None:
        """Add a symbol; one of the same name is replaced."""
        self._symbols[symbol.name] = symbol

    def remove(self, name: str) -> Symbol | None:
        """Remove the symbol *name* and return it, or None when there is none."""
        return self._symbols.pop(name, None)

    def find(self, name: str) -> Sequence[Symbol]:
        found = self._symbols.get(name)
        return () if found is None else (found,)

    def at(self, address: int) -> Symbol | None:
        """Return the symbol that covers *address*, the closest one when several do.

        Of several at one address: one with a size, of a known type, that is not weak, the first by name.
        """
        covering = [symbol for symbol in self._symbols.values()
                    if symbol.address <= address < symbol.address + max(symbol.size, 1)]
        covering.sort(key=lambda symbol: symbol.name)
        return max(covering, key=_preference, default=None)

    def below(self, address: int, lowest: int = 0) -> Symbol | None:
        """Return the closest symbol not above *address*, whatever its size; None for one that is below *lowest*."""
        if address < lowest:
            return None
        symbols = sorted(symbol for symbol in self._symbols.values() if symbol.address <= address)
        return max(symbols, key=_preference, default=None)

    def lowest(self) -> int:
        """Return an address below which no symbol lies."""
        return min((symbol.address for symbol in self._symbols.values()), default=1 << 64)

    def starting(self, prefix: str, limit: int) -> Sequence[str]:
        return sorted(name for name in self._symbols if name.startswith(prefix))[:limit]

    def __iter__(self) -> Iterator[Symbol]:
        return iter(list(self._symbols.values()))

    def __len__(self) -> int:
        return len(self._symbols)


def _preference(symbol: Symbol) -> tuple[int, bool, bool, bool]:
    return symbol.address, symbol.size > 0, symbol.type != "?", symbol.type not in "WwVv"
