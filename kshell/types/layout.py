"""Where members lie: sizes, alignments and bit-fields as GCC lays them out.

Source: System V AMD64 ABI 3.1.2 (aggregates, bit-fields), GCC's documentation of ``packed`` and ``aligned``; the same
rules hold for 32-bit data models with other sizes of ``long`` and pointers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kshell.errors import KshellError
from kshell.types.model import ArrayType, CType, Kind, Member, StructType

MAX_SIZE = 1 << 62


class Field(NamedTuple):
    """A member as it was declared.

    :ivar width: bits of a bit-field, else None
    :ivar align: asked for by an attribute, 0 for none
    """

    name: str | None
    type: CType
    width: int | None = None
    align: int = 0
    packed: bool = False


class Aligned:
    """Alignments of types; those of declared structures are remembered, others are found from their members.

    :param word: bytes of a pointer. Of 4, larger numbers lie at multiples of 4 too in structures (System V ABI for
        i386, and ``-malign-double`` in GCC's documentation)
    """

    def __init__(self, word: int = 8) -> None:
        self._sizes = (1, 2, 4, 8, 16) if word == 8 else (1, 2, 4)
        self._most = 1 if word == 8 else 4
        self._known: dict[CType, int] = {}

    def remember(self, type: CType, align: int) -> None:
        """Record the alignment that a type was declared with."""
        self._known[type] = align

    def of(self, type: CType) -> int:
        """Return the alignment of *type* in bytes."""
        for _ in range(100):
            known = self._known.get(type)
            if known is not None:
                return known
            if type.kind in (Kind.TYPEDEF, Kind.QUALIFIED, Kind.ARRAY):
                type = type.target  # type: ignore[attr-defined]
                continue
            break
        if isinstance(type, StructType):
            return self._struct(type)
        size = type.size or 1
        return size if size in self._sizes else self._most if size % 4 == 0 else 1

    def _struct(self, type: StructType) -> int:
        """Return the alignment of a structure whose declaration is not known: what its members and size allow."""
        self._known[type] = 1  # one that holds itself is damaged
        align = 1
        for member in type.members:
            if member.bit_size is None or member.name is not None:
                own = self.of(member.type)
                if member.bit_offset % (8 * own) == 0 or member.bit_size is not None:
                    align = max(align, own)
        while align > 1 and (type.size or 0) % align:
            align //= 2
        self._known[type] = align
        return align


def lay_out(
    fields: Sequence[Field], kind: Kind, aligned: Aligned, *, packed: bool = False, align: int = 0,
) -> tuple[list[Member], int, int]:
    """Return the members of a structure or union with their places, its size and its alignment in bytes.

    :raises KshellError: it is larger than any memory
    """
    members: list[Member] = []
    position = end = 0  # bits
    whole = 1
    for field in fields:
        own = 1 if packed or field.packed else aligned.of(field.type)
        own = max(own, field.align)
        size = 8 * (field.type.size or 0)
        if field.width is None:
            position = -(-position // (8 * own)) * 8 * own
            place = position
            position += size
            whole = max(whole, own)
        else:
            unit = size
            if field.width == 0:
                position = -(-position // unit) * unit
                continue
            if field.align:
                position = -(-position // (8 * field.align)) * 8 * field.align
            elif not (packed or field.packed) and position % unit + field.width > unit:
                position = -(-position // unit) * unit
            place = position
            position += field.width
            if field.name is not None:
                whole = max(whole, own)
        if field.name is not None or field.width is None:
            members.append(Member(field.name, field.type, place, field.width))
        end = max(end, position)
        if kind is Kind.UNION:
            position = 0
        if end > 8 * MAX_SIZE:
            raise KshellError(f"the structure is larger than any memory: {end >> 3:#x} bytes")
    whole = max(whole, align)
    size = -(-end // (8 * whole)) * whole
    return members, size, whole


def check_size(type: CType) -> None:
    """Refuse an array that is larger than any memory.

    :raises KshellError: it is
    """
    if isinstance(type, ArrayType) and (type.size or 0) > MAX_SIZE:
        raise KshellError(f"the array is larger than any memory: {type.size or 0:#x} bytes")
