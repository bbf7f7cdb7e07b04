"""The rows of ``::enum``: the names and values of an enum (mdb-language.md 11.6)."""

from __future__ import annotations

from collections.abc import Iterator

from kshell.errors import KshellError
from kshell.types.model import CType, EnumType, near_names
from kshell.value.enums import EnumNames


class EnumTable:
    """The enumerators of a type.

    :param name: the type as it was written
    :ivar hexadecimal: whether values are better shown in hex: they are single bits
    :raises KshellError: it is not an enum
    """

    def __init__(self, name: str, type: CType) -> None:
        bare = type.strip()
        if not isinstance(bare, EnumType):
            raise KshellError(f"'{name}': not an enumeration")
        self._name, self._type, self._names = name, bare, EnumNames(bare)
        self.hexadecimal = self._names.flags

    def rows(self, wanted: str | int | None = None) -> Iterator[tuple[int, str]]:
        """Yield (value, name) of all, of the one of this name, or of those of this value.

        A value of an enum of bits that has no name of its own is told by the names of its bits.

        :raises KshellError: there is none
        """
        found = False
        mask = (1 << 8 * (self._type.size or 8)) - 1
        for name, value in self._type.enumerators:
            if wanted is None or wanted == name or (isinstance(wanted, int) and (wanted ^ value) & mask == 0):
                found = True
                yield value, name
        if found or wanted is None:
            return
        if isinstance(wanted, int):
            if not self.hexadecimal or wanted != wanted & mask:
                raise KshellError(f"value {wanted:x} not in '{self._name}'")
            yield wanted, self._names.text(wanted)
            return
        names = [one.name for one in self._type.enumerators]
        near = " or ".join(f'"{one}"' for one in near_names(wanted, names))
        raise KshellError(f"name \"{wanted}\" not in '{self._name}'{f'; did you mean {near}?' if near else ''}")

    def short(self, name: str) -> str:
        """Return *name* without what all names of the enum begin with."""
        return name[self._names.prefix :]

    def unsigned(self, value: int) -> int:
        """Return *value* as the bits of the enum's size."""
        return value & ((1 << 8 * (self._type.size or 8)) - 1)
