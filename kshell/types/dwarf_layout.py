"""Where members lie by DWARF, how many elements arrays have, and the checks that keep damaged types from having no end.

DWARF 5 standard 5.5.2 (arrays), 5.7.6 (members; DW_AT_bit_offset of version 3 and before counts from the other end).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kshell.errors import FormatError
from kshell.types import dwarf_forms as f
from kshell.types.dwarf_units import Die, Unit, Units
from kshell.types.model import CType

MAX_CHAIN = 64
MAX_PARTS = 4096
MAX_DIMENSIONS = 32
#: tags of the size of what they wrap
WRAPPERS = (f.TYPEDEF, f.CONST, f.VOLATILE, f.RESTRICT, f.ATOMIC)
AGGREGATES = (f.STRUCT, f.UNION, f.CLASS)
LINKS = (*WRAPPERS, f.ARRAY, f.POINTER, f.REFERENCE, f.RVALUE, f.PTR_TO_MEMBER, f.SUBROUTINE, f.SUBPROGRAM)


def array_counts(units: Units, unit: Unit, die: Die) -> list[int]:
    """Return the number of elements of each dimension of an array, 0 where it is not told (flexible arrays)."""
    counts: list[int] = []
    for one in units.children(unit, die):
        if one.tag not in (f.SUBRANGE, f.ENUM) or len(counts) >= MAX_DIMENSIONS:
            continue
        count = units.number(one, f.AT_COUNT)
        if count is None:
            last = one.values.get(f.AT_UPPER_BOUND)
            count = 0
            if last is not None and isinstance(last[1], int) and last[0] not in (f.F_REF4, f.F_REF_UDATA):
                # "int a[0]" has -1, in as many bytes as the form has
                count = last[1] + 1 if last[1] not in (0xFFFF_FFFF, (1 << 64) - 1) else 0
        if not 0 <= count < 1 << 60:
            raise FormatError(f"DWARF: the array at 0x{die.offset:x} has an impossible number of elements")
        counts.append(count)
    return counts


def member_place(units: Units, die: Die, type_of: Callable[[], CType]) -> tuple[int, int | None]:
    """Return where a member begins, in bits from the start of its structure, and the width of a bit-field."""
    width = units.number(die, f.AT_BIT_SIZE)
    start = units.number(die, f.AT_DATA_BIT_OFFSET)
    offset = 8 * (units.number(die, f.AT_MEMBER_LOCATION) or 0)
    if width is None:
        return (offset if start is None else start), None
    if start is not None:
        return start, width
    before = units.number(die, f.AT_BIT_OFFSET)
    if before is None:
        return offset, width
    size = units.number(die, f.AT_BYTE_SIZE) or type_of().size or 4
    return offset + 8 * size - before - width, width


class Shapes:
    """Looks at entries of types as a graph."""

    def __init__(self, units: Units) -> None:
        self._units = units
        self._checked: set[int] = set()

    def _at(self, offset: int) -> tuple[Unit, Die]:
        unit = self._units.unit_of(offset)
        return unit, self._units.die(unit, offset)

    def check_chain(self, offset: int) -> None:
        """Refuse a type whose size would never be known, or whose declaration would never end.

        :raises FormatError: typedefs, qualifiers, arrays, pointers or prototypes in a circle
        """
        seen = offset
        for _ in range(MAX_CHAIN):
            unit, die = self._at(seen)
            behind = self._units.reference(unit, die, f.AT_TYPE)
            if behind is None or (die.tag not in WRAPPERS and die.tag != f.ARRAY):
                break
            seen = behind
        else:
            raise FormatError(f"DWARF: the type at 0x{offset:x} is made of itself: its chain of types never ends")
        todo, parts = [(offset, 0)], 0
        while todo:
            at, depth = todo.pop()
            parts += 1
            if depth > MAX_CHAIN or parts > MAX_PARTS:
                raise FormatError(f"DWARF: the type at 0x{offset:x} is made of itself: its declaration never ends")
            if at in self._checked:
                continue
            unit, die = self._at(at)
            if die.tag not in LINKS or (die.tag == f.TYPEDEF and at != offset):
                continue
            self._add(todo, unit, die, depth + 1)
            if die.tag in (f.SUBROUTINE, f.SUBPROGRAM):
                for one in self._units.children(unit, die):
                    if one.tag == f.FORMAL:
                        self._add(todo, unit, one, depth + 1)
        self._checked.add(offset)

    def _add(self, todo: list[tuple[int, int]], unit: Unit, die: Die, depth: int) -> None:
        place = self._units.reference(unit, die, f.AT_TYPE)
        if place is not None and die.tag != f.TYPEDEF:
            todo.append((place, depth))

    def check_nesting(self, owner: int, size: int, member: int) -> None:
        """Refuse a structure that contains itself, or a larger one, by value: *member* is the type of one of its parts.

        :raises FormatError: it does
        """
        todo, seen = [member], set[int]()
        while todo:
            inner = self._aggregate(todo.pop())
            if inner is None:
                continue
            unit, die = inner
            other = self._units.number(die, f.AT_BYTE_SIZE) or 0
            if die.has(f.AT_DECLARATION):
                continue
            if die.offset == owner or other > size or len(seen) > MAX_PARTS:
                raise FormatError(f"DWARF: the type at 0x{owner:x} contains itself or a larger type")
            if other == size and size and die.offset not in seen:
                seen.add(die.offset)
                todo += self._parts(unit, die)

    def _aggregate(self, offset: int) -> tuple[Unit, Die] | None:
        """Return the structure or union that is by value in a part of type *offset*, or None."""
        for _ in range(MAX_CHAIN):
            unit, die = self._at(offset)
            if die.tag in AGGREGATES:
                return unit, die
            if die.tag == f.ARRAY and 0 in array_counts(self._units, unit, die):
                return None
            place = self._units.reference(unit, die, f.AT_TYPE)
            if place is None or (die.tag not in WRAPPERS and die.tag != f.ARRAY):
                return None
            offset = place
        return None

    def _parts(self, unit: Unit, die: Die) -> Iterator[int]:
        for one in self._units.children(unit, die):
            place = self._units.reference(unit, one, f.AT_TYPE) if one.tag == f.MEMBER else None
            if place is not None:
                yield place
