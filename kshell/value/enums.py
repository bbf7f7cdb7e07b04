"""Names of enum values: one name, or ``PFX_{A|B}`` for enums whose values are single bits.

Which enums are taken for flags, and how they are written: ``::print`` and ``::enum``, mdb-language.md 11.2 and 11.6.
Where mdb writes ``0 (0)`` for a flags enum that names its zero, the name is written here.
"""

from __future__ import annotations

from kshell.types.model import EnumType


class EnumNames:
    """The enumerators of one enum by value.

    :ivar flags: whether all values are zero or single bits, and at least one is a bit
    :ivar prefix: characters that all names begin with, never all of a name
    """

    __slots__ = ("_bits", "_by_value", "_mask", "flags", "prefix")

    def __init__(self, type: EnumType) -> None:
        self._mask = (1 << 8 * type.size) - 1 if type.size else 0
        by_value: dict[int, str] = {}
        for name, value in type.enumerators:
            by_value.setdefault(value & self._mask, name)
        self._by_value = by_value
        self.flags = any(by_value) and all(value & (value - 1) == 0 for value in by_value)
        names = [item.name for item in type.enumerators]
        self.prefix = _common(names)
        self._bits = sum(value for value in by_value) if self.flags else 0

    def name(self, value: int) -> str | None:
        """Return the first name that has exactly this value, or None."""
        return self._by_value.get(value & self._mask)

    def text(self, value: int) -> str:
        """Return what ``::print`` shows in parentheses: a name, names of bits, or ``???``."""
        value &= self._mask
        if not self.flags or value in self._by_value:
            return self._by_value.get(value, "???")
        names = [name for bit, name in self._by_value.items() if bit & value]
        if len(names) > 1 and self.prefix:
            shown = f"{names[0][:self.prefix]}{{{'|'.join(name[self.prefix:] for name in names)}}}"
        else:
            shown = "|".join(names)
        unknown = value & ~self._bits
        if unknown or not names:
            text = f"0x{unknown:x}" if unknown > 9 else str(unknown)
            shown = f"{shown}|{text}" if names else text
        return shown


def _common(names: list[str]) -> int:
    """Return how many characters all names begin with, one less if that would leave nothing of a name."""
    if not names:
        return 0
    first, last = min(names), max(names)
    count = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return count - 1 if count == len(first) else count
